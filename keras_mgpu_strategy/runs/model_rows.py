"""From what a user passes to the rows that a model is given."""

import dataclasses
from collections.abc import Callable, Iterator, Sequence
from typing import Any, TypeAlias

from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.inputs import as_source, named_rows, select_inputs
from keras_mgpu_strategy.models import Preprocessing
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.runs.padded_rows import PaddedRows, padded_rows
from keras_mgpu_strategy.sources.checks import check_batch_size
from keras_mgpu_strategy.sources.matching import match_inputs
from keras_mgpu_strategy.sources.pad import Pad, check_pad
from keras_mgpu_strategy.sources.wrapping import Limited
from keras_mgpu_strategy.types import InputBatch, Nest, Source, Undeclared

Attach: TypeAlias = Callable[[Source], Source]
"""Returns a source that knows more about its rows."""


@dataclasses.dataclass(frozen=True)
class ModelRows:
    """The rows of a run; `whole` are all of the input, `source` ends with the last."""

    whole: Source
    source: Source
    first_row: int
    spec: Nest  # of what the model is given
    preprocess: Preprocessing | None  # makes that of rows; None if they are that
    padded: PaddedRows | None = None  # how rows of unequal length become batches

    @property
    def window(self) -> int | None:
        """Rows that are sorted by length at a time, if any are."""
        return self.padded and self.padded.pad.window

    @property
    def longest(self) -> int:
        """The longest length that rows are padded to."""
        return self.padded.lengths[-1] if self.padded else 1


def model_rows(
    x: Any,
    backend: Backend,
    batch_size: int | None,
    steps: int | None,
    shard: Shard | None,
    keep: Sequence[str],
    attach: Attach | None,
    pad: Pad | None,
) -> ModelRows:
    """Opens an input and checks it against the model, reading as little as it can."""
    check_batch_size(batch_size, x)
    check_pad(pad)
    declared = _declared(backend)
    sizes = {"steps": steps, "batch_size": batch_size, "keep": keep}
    sizes |= {"input_spec": declared, "feeding": backend.feeding}
    whole = as_source(x, **sizes, ragged=pad is not None)
    if attach is not None:
        whole = attach(whole)
    if whole.spec is None:
        whole = _without_rows(backend)
    source, spec, preprocess = _fitted(whole, backend)
    padded = None
    if pad is not None:
        source, padded = padded_rows(source, pad, backend)
    source, first_row = _part(source, shard, pad and pad.window)
    if backend.is_remote and pad is None:
        source = named_rows(x, source, declared, backend.feeding)
    return ModelRows(whole, source, first_row, spec, preprocess, padded)


def _declared(backend: Backend) -> Nest:
    """What is declared about the rows as they are read."""
    if backend.feeding.raw:
        return Undeclared(None)
    spec = backend.input_spec
    return Undeclared(backend.floats) if spec is None else spec


def _fitted(
    whole: Source, backend: Backend
) -> tuple[Source, Nest, Preprocessing | None]:
    """The rows for the model, the spec of its inputs, and how they are made."""
    feeding = backend.feeding
    if isinstance(whole, _NoRows):
        return whole, whole.spec, None
    preprocess = backend.preprocessing(whole.spec)
    spec = whole.spec if preprocess is None else preprocess.spec
    # Keras does not check what a user's `predict_step` is given either.
    if feeding.whole is None and not _is_preprocessed_elsewhere(backend):
        match_inputs(spec, backend.input_spec)
    if feeding.whole is not None or feeding.raw:
        return whole, spec, preprocess
    source = select_inputs(whole, backend.input_spec)
    return source, source.spec, None


def _is_preprocessed_elsewhere(backend: Backend) -> bool:
    return backend.feeding.raw and backend.is_remote


def _part(
    source: Source, shard: Shard | None, window: int | None
) -> tuple[Source, int]:
    """The source up to the end of a shard, and the shard's first row."""
    if shard is None:
        return source, 0
    if source.num_rows is None:
        raise ValueError(
            f"shard=({shard.index}, {shard.count}) needs an input whose number of rows "
            "is known before it is read, so not a generator or a tf.data.Dataset. Pass "
            "arrays or files, or give each machine its own part of the input."
        )
    rows = shard.rows(source.num_rows, window)
    return Limited(source, rows.stop, on_short=lambda rows: None), rows.start


@dataclasses.dataclass(frozen=True)
class _NoRows:
    """A source without rows, like an empty generator."""

    spec: Nest
    num_rows: int = 0

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        return iter(())


def _without_rows(backend: Backend) -> _NoRows:
    if backend.input_spec is None or _is_preprocessed_elsewhere(backend):
        raise ValueError(
            "The input has no batch at all, and the model does not declare its "
            "inputs, so the shape of the results is not known. Pass at least one "
            "batch, or arrays of shape (0, ...)."
        )
    return _NoRows(backend.input_spec)
