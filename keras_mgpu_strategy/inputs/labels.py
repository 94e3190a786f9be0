"""Labels and sample weights of a run's rows, wherever the user has them.

As in Keras, generators and data sets hold them in their elements. A column of x is
given by its name, and is then not an input. Those in arrays or files of their own are
read in step with the rows.
"""

import functools
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.element_forms import map_nest
from keras_mgpu_strategy.formats.by_path import names_files
from keras_mgpu_strategy.formats.choosing import as_file
from keras_mgpu_strategy.formats.columns import LIST
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.formats.parquet.decoding import decoded, first_lengths
from keras_mgpu_strategy.formats.parquet.ragged_columns import rows_of_column
from keras_mgpu_strategy.formats.parquet.schema import column_type
from keras_mgpu_strategy.inputs.arrow_tables import is_table
from keras_mgpu_strategy.inputs.keeping import has_columns, taken
from keras_mgpu_strategy.inputs.opening import as_source
from keras_mgpu_strategy.inputs.ragged_forms import rows_of
from keras_mgpu_strategy.sources.frames import is_series
from keras_mgpu_strategy.sources.in_step import InStep, Labels
from keras_mgpu_strategy.sources.kept import KeptElements
from keras_mgpu_strategy.sources.nests import leaves
from keras_mgpu_strategy.sources.row_errors import Fail
from keras_mgpu_strategy.sources.row_lists import RowList
from keras_mgpu_strategy.sources.streams import StreamSource
from keras_mgpu_strategy.sources.targets import ByColumn, OfElements, for_each_output
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.types import Nest, Ragged, Source


def labelled(
    x: Any,
    given: Mapping[str, Any],
    keep: Sequence[str],
    steps: int | None,
    *,
    as_keras: bool = False,
    num_ragged: int | None = None,
) -> dict[str, Any]:
    """Returns x, the columns to `keep` and what is to `attach` the labels, by name.

    `given` has labels, then weights, by the names of the user's arguments. `as_keras`,
    labels may be absent, but not be beside elements. With `num_ragged`, the number of
    outputs, labels may differ in length.
    """
    given = {name: some for name, some in given.items() if some is not None}
    if num_ragged is not None:
        given = {n: _as_rows(some, n, num_ragged) for n, some in given.items()}
    given = {name: _as_arrays(some) for name, some in given.items()}
    if not given:
        attach = functools.partial(_of_elements, as_keras, num_ragged)
        return {"x": x, "keep": keep, "attach": attach}
    found = (leaf for some in given.values() for _, leaf in leaves(some))
    names = list(dict.fromkeys(leaf for leaf in found if isinstance(leaf, str)))
    is_file = is_table(x) or names_files(x) or isinstance(x, FileInput)
    if names and (is_file or not {*names}.isdisjoint(keep)):
        import_extra("pyarrow", "parquet", "Labels in columns")
        hidden = [name for name in names if name not in keep]
        values_of = functools.partial(_of_column, num_ragged is not None)
        attach = functools.partial(ByColumn, _all_named(given), hidden, values_of)
        return {"x": x, "keep": (*keep, *hidden), "attach": attach}
    if names and not has_columns(x):
        raise ValueError(
            f"{names[0]!r} is a name, but x is {type(x).__name__}, which has no named "
            "columns. Expected an array, or the name of a column of a DataFrame, an "
            "Arrow table, a Parquet or CSV file, or of an entry of a dict."
            f"{as_file(names)}"
        )
    x, columns = taken(x, names, "labels in x") if names else (x, {})
    arrays = map_nest(
        lambda leaf: _as_array(columns[leaf] if isinstance(leaf, str) else leaf), given
    )
    sources = {name: as_source(some, name=name) for name, some in arrays.items()}
    attach = functools.partial(_beside, sources, steps is not None, as_keras)
    return {"x": x, "keep": keep, "attach": attach}


def _of_elements(is_optional: bool, num_ragged: int | None, source: Source) -> Source:
    def form(targets: tuple[Nest, ...]) -> tuple[Nest, ...]:
        if num_ragged is None:
            return targets
        pairs = zip(targets, ("y", "sample_weight"), strict=False)
        return tuple(_as_rows(x, name, num_ragged, least=1) for x, name in pairs)

    if isinstance(source, StreamSource | KeptElements):
        return OfElements(source, form)
    if is_optional:
        return source
    raise ValueError(
        "Received metrics= without labels=, and x is not a generator or data set of "
        "elements (x, y). Pass labels=, with one row per input row."
    )


def _beside(
    sources: dict[str, Source], is_limited: bool, as_keras: bool, source: Source
) -> Source:
    if as_keras and isinstance(source, StreamSource):
        raise ValueError(
            "Received y= with x that comes in batches of its own, expected elements "
            "(x, y) or (x, y, sample_weight) that hold the labels, as in Keras."
        )
    return InStep([Labels(*pair) for pair in sources.items()], is_limited, source)


def _all_named(given: Mapping[str, Nest]) -> tuple[Nest, ...]:
    flat = [leaf for some in given.values() for _, leaf in leaves(some)]
    if not all(isinstance(leaf, str) for leaf in flat):
        raise ValueError(
            "Received the names of columns together with arrays, expected only names "
            "if x is a file or an Arrow table. Add the array to x as a column."
        )
    return tuple(for_each_output([*given.values()]))


def _as_array(leaf: Any) -> Any:
    # As Keras does, so that a metric of the user's own sees two axes.
    return leaf.to_frame() if is_series(leaf) else leaf


def _as_rows(labels: Any, name: str, num_outputs: int, least: int = 2) -> Any:
    """Labels of `least` different lengths or more as rows, others as they are."""
    if isinstance(labels, Mapping):
        return {x: _as_rows(labels[x], f"{name}[{x!r}]", 1, least) for x in labels}
    if isinstance(labels, list | tuple) and num_outputs == len(labels) > 1:
        pairs = enumerate(labels)
        return [_as_rows(some, f"{name}[{i}]", 1, least) for i, some in pairs]
    rows = rows_of(labels, name)
    is_list = isinstance(rows, RowList) and len({*rows.lengths.tolist()}) >= least
    return rows if is_list or isinstance(rows, Ragged) else labels


def _of_column(may_vary: bool, column: Any, fail: Fail) -> Any:
    """A column as an array of two axes or more; lists as rows if they may vary."""
    kind = column_type(column.type)
    if may_vary and kind.kind == LIST:
        return rows_of_column(column, fail)
    column = column.combine_chunks()
    lengths = first_lengths(column, len(kind.lengths))
    array = decoded(column, lengths, True, False, fail)  # decimals may be fractions
    return array if array.ndim > 1 else array[:, np.newaxis]


def _as_arrays(labels: Any) -> Any:
    """Labels as users write them, with arrays in place of lists of numbers."""
    if isinstance(labels, dict):
        return {name: _as_arrays(inner) for name, inner in labels.items()}
    first: Any = labels
    while isinstance(first, list | tuple) and first:
        first = first[0]
    is_number = isinstance(first, bool | int | float | np.generic)
    return np.asarray(labels) if is_number and first is not labels else labels
