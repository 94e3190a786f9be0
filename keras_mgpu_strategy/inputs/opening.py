"""Which adapter reads which kind of input: one table row each.

Everything that predict methods take as data goes through this table; the rest is
refused with an error that lists what is in it.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy.element_forms import is_nest
from keras_mgpu_strategy.formats.by_path import file_input, names_files
from keras_mgpu_strategy.formats.csv.read import Csv
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.formats.parquet.read import Parquet
from keras_mgpu_strategy.formats.tfrecords import TFRecords
from keras_mgpu_strategy.inputs.arrow_tables import is_table, table_source
from keras_mgpu_strategy.inputs.forms import (
    ARRAYS,
    DATASET,
    STREAM,
    declared_of,
    form_of,
    in_array_form,
    with_arrays,
)
from keras_mgpu_strategy.inputs.keeping import (
    cannot_keep,
    check_lengths,
    kept_of_stream,
    without_kept,
)
from keras_mgpu_strategy.inputs.ragged_forms import as_rows, ragged_form, with_tokens
from keras_mgpu_strategy.sources.array_kinds import ACCEPTED, is_array_like
from keras_mgpu_strategy.sources.arrays import ArraySource
from keras_mgpu_strategy.sources.checks import check_batch_size, check_steps
from keras_mgpu_strategy.sources.datasets import dataset_source
from keras_mgpu_strategy.sources.kept import WithKept
from keras_mgpu_strategy.sources.streams import (
    Form,
    StreamSource,
    inputs_of,
    sequence_source,
    warns_of_short,
)
from keras_mgpu_strategy.sources.unsupported import refuse
from keras_mgpu_strategy.sources.wrapping import Limited
from keras_mgpu_strategy.types import X_ALONE, Feeding, Nest, Source


def as_source(
    x: Any,
    *,
    steps: int | None = None,
    batch_size: int | None = None,
    input_spec: Nest = None,
    feeding: Feeding = X_ALONE,
    keep: Sequence[str] = (),
    name: str = "x",
    ragged: bool = False,
) -> Source:
    """Returns the rows of any input that predict methods take.

    `steps` counts the user's own batches, or `batch_size` rows of arrays and files;
    without `batch_size`, all rows are divided over the steps. Raises TypeError,
    ValueError, OSError or ImportError. `spec` is None for a stream without a batch.
    Columns named by `keep` are in the source's marks, not among the inputs. Errors call
    the input `name`. If `ragged`, rows may differ in length.
    """
    check_batch_size(batch_size, x)
    check_steps(steps)
    x = with_arrays(as_rows(x, feeding, name) if ragged else x, input_spec, feeding)
    named = file_input(x) if names_files(x) else x
    is_file = isinstance(named, FileInput) and not isinstance(named, type)
    if is_file or is_table(x):
        # TFRecords come in their own batches, as data sets do.
        size = (named.batch_size if isinstance(named, TFRecords) else 0) or batch_size
        source = _limited(_opened(named, input_spec, keep, ragged), named, steps, size)
        return in_array_form(source, feeding)
    refuse(x, name)
    for applies, kind, adapter in _SOURCES:
        if not applies(x):
            continue
        form, declared = form_of(feeding, kind), declared_of(feeding, kind, input_spec)
        form = ragged_form(form, declared, name) if ragged else form
        if adapter is None:
            x, kept = without_kept(x, keep, input_spec) if keep else (x, {})
            source = ArraySource(form(x), declared, name)
            check_lengths(kept, source.num_rows)
            source = _limited(source, x, steps, batch_size)
            return WithKept(source, kept) if kept else source
        read = functools.partial(adapter, x, steps, declared, lists_are_rows=ragged)
        return kept_of_stream(read, form, keep, input_spec) if keep else read(form)
    raise TypeError(
        f"Cannot read rows from {type(x).__name__}, expected {ACCEPTED}, dicts, lists "
        "or tuples of these, a batched tf.data.Dataset, a keras.utils.PyDataset, a "
        "generator or iterator of batches (iter(x) of an iterable), or a path."
    )


def _opened(x: Any, input_spec: Nest, keep: Sequence[str], ragged: bool) -> Source:
    """Opens a table or files."""
    if is_table(x):
        source = table_source(x, input_spec, keep, ragged=ragged)
    elif isinstance(x, Parquet):
        source = x.open_rows(input_spec, keep, ragged=ragged)
    elif keep and not isinstance(x, Csv):
        raise cannot_keep(x, keep)
    elif ragged and isinstance(x, TFRecords):
        return x.open_rows(input_spec, ragged_form(inputs_of, input_spec, "x"))
    else:
        source = x.open_rows(input_spec, *([keep] if keep else []))
    return with_tokens(source, input_spec) if ragged else source


def _limited(source: Source, x: Any, steps: int | None, size: int | None) -> Source:
    if steps is None:
        return source
    if size is None:
        if source.num_rows is not None:
            return source
        raise ValueError(
            f"Received steps={steps} for {type(x).__name__}, whose number of rows is "
            "not known, expected batch_size= with it: the rows of a step."
        )
    on_short = warns_of_short(steps)
    if source.num_rows is not None:
        on_short(math.ceil(source.num_rows / size))
    if isinstance(source, ArraySource):  # whose origin is that of the rows read
        source.num_rows = min(source.num_rows, steps * size)
        return source
    return Limited(source, steps * size, lambda rows: on_short(math.ceil(rows / size)))


def _iterator(
    x: Any, steps: int | None, input_spec: Nest, form: Form, *, lists_are_rows: bool
) -> Source:
    how = {"can_reopen": False, "lists_are_rows": lists_are_rows}
    return StreamSource(lambda: x, steps, input_spec, form, **how)


def _is_sequence(x: Any) -> bool:
    has_length = hasattr(x, "__len__") or hasattr(x, "num_batches")
    return has_length and hasattr(x, "__getitem__") and not is_array_like(x)


_SOURCES = (
    (lambda x: isinstance(x, tf.data.Dataset), DATASET, dataset_source),
    (lambda x: isinstance(x, keras.utils.PyDataset), STREAM, sequence_source),
    (lambda x: is_nest(x) or is_array_like(x), ARRAYS, None),
    (lambda x: isinstance(x, Iterator), STREAM, _iterator),
    (_is_sequence, STREAM, sequence_source),
)
