"""How the rows of an input are padded for a model: found out before anything runs."""

import dataclasses
from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.compute.signatures import example_inputs, row_bytes
from keras_mgpu_strategy.compute.sizes import per_replica
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.models import PaddedOutputs
from keras_mgpu_strategy.sources.lengths import chosen_lengths
from keras_mgpu_strategy.sources.nests import leaves
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.sources.padding import padded_nest
from keras_mgpu_strategy.sources.ragged_pieces import FirstWindow, row_lengths
from keras_mgpu_strategy.sources.token_batches import TokenBatches, token_batches
from keras_mgpu_strategy.sources.windows import Windows, check_lengths
from keras_mgpu_strategy.types import Nest, Ragged, Source, has_free_length

_TOKENS = 65536
_LEAST_BATCHES = 16
_NUM_TRIED = 4
_TRIED_LENGTHS = (32, 64)
"""Of rows that are tried if there are none."""


@dataclasses.dataclass(frozen=True)
class PaddedRows:
    """How the rows of a run, of which `first` is the source, are padded.

    `rows` are the lengths in ascending order, and how many rows of the first window
    each has; `values` pad the flat inputs, None if one does not vary.
    """

    pad: Pad
    rows: tuple[tuple[int, int], ...]
    values: tuple[Any, ...]
    first: FirstWindow

    @property
    def lengths(self) -> tuple[int, ...]:
        """The lengths that rows are padded to, in ascending order."""
        return tuple(length for length, _ in self.rows)

    def windows(self, source: Source, batches: TokenBatches) -> Windows:
        """The rows of a source in the order in which they are run."""
        sizes = (self.first.row_bytes, self.first.piece_rows)
        return Windows(source, self.pad, self.values, batches, *sizes)

    def tried(self, backend: Backend, head: Head, spec: Nest) -> PaddedOutputs:
        """Which results vary, after a look whether the model ignores padding."""
        side, first = self.pad.side, self.first.rows
        if first is None:
            length, longest = _TRIED_LENGTHS
            padded, alone = example_inputs(spec, 1, longest), [length]
        else:
            lengths, longest = row_lengths(first), self.lengths[-1]
            shorter = np.flatnonzero((lengths > 0) & (lengths < longest))
            own, places = np.unique(lengths[shorter], return_index=True)
            near = slice(len(own) // 2, len(own) // 2 + _NUM_TRIED)  # about the middle
            alone = own[near].tolist() or [max(min(int(lengths[0]), longest), 1)]
            rows = np.array([*shorter[places[near]], *range(len(lengths))])
            rows = rows[:_NUM_TRIED]
            padded = padded_nest(first.inputs, rows, longest, self.values, side)
        unmasked = self.pad.unmasked or first is None
        how = {"side": side, "unmasked": unmasked}
        return backend.try_padded(head, spec, padded, alone, **how)

    def batches(
        self,
        batch_size: int | None,
        fixed: int | None,
        most: int | None,
        num_replicas: int,
    ) -> TokenBatches:
        """Micro-batches as the user, a model of `fixed` batches, or memory says."""
        longest, tokens = self.lengths[-1], self.pad.max_tokens
        leaf = next((i for i, x in enumerate(self.values) if x is not None), 0)
        if batch_size is not None or fixed is not None:
            if tokens is not None:
                given = f"batch_size={batch_size}"
                if batch_size is None:
                    given = f"a model that was built for batches of {fixed} rows"
                raise ValueError(
                    f"Received max_tokens={tokens} and {given}. Expected one of them: "
                    "both say how many rows a batch has."
                )
            size = fixed or per_replica(batch_size or 1, num_replicas)
            return TokenBatches(leaf, tuple((n, size) for n in self.lengths), None)
        if tokens is not None and tokens < longest:
            raise ValueError(
                f"max_tokens={tokens} is less than one row of the longest length, "
                f"{longest} tokens. Pass more, or lengths= with truncate=True."
            )
        if tokens is None:
            limits = [_TOKENS, (most or _TOKENS) * longest]
            if self.first.is_all:  # enough batches for several replicas
                total = sum(length * count for length, count in self.rows)
                limits.append(total // _LEAST_BATCHES)
            tokens = max(min(limits), longest)
        return token_batches(leaf, self.rows, tokens, is_all=self.first.is_all)


def padded_rows(
    source: Source, pad: Pad, backend: Backend
) -> tuple[Source, PaddedRows]:
    """The source, of which the first window has been read, and how rows are padded."""
    sizes = _bytes(source.spec, backend.output_shapes)
    first = FirstWindow(source, pad.window, sizes)
    values = _values(source.spec, first, pad, backend.input_spec)
    if pad.lengths == "auto":
        lengths = chosen_lengths(first.lengths)
    else:
        check_lengths(pad, first.lengths)
        lengths = tuple(pad.lengths)
    buckets = np.searchsorted(lengths, np.minimum(first.lengths, lengths[-1]))
    counts = np.bincount(buckets, minlength=len(lengths)).tolist()
    rows = tuple(zip(lengths, counts, strict=True))
    return first, PaddedRows(pad, rows, values, first)


def _bytes(spec: Nest, output_shapes: Nest | None) -> tuple[int, int]:
    """Bytes of inputs and declared outputs: of a row, and of each token of it."""
    shapes = [s for s in tf.nest.flatten(output_shapes or ()) if s.rank]
    flat = [*tf.nest.flatten(spec), *map(tf.TensorSpec, shapes)]
    varying = [leaf for leaf in flat if has_free_length(leaf.shape)]
    others = [leaf for leaf in flat if not has_free_length(leaf.shape)]
    return row_bytes(others), row_bytes(varying)


def _values(
    spec: Nest, first: FirstWindow, pad: Pad, declared: Nest | None
) -> tuple[Any, ...]:
    """What each flat input is padded with; None for those that do not vary."""
    flat, names = tf.nest.flatten(spec), _names(spec, declared)
    varying = [has_free_length(leaf.shape) for leaf in flat]
    if first.rows is not None:
        varying = [isinstance(x, Ragged) for x in tf.nest.flatten(first.rows.inputs)]
    return tuple(
        _value(pad, name, leaf.dtype) if varies else None
        for varies, name, leaf in zip(varying, names, flat, strict=True)
    )


def _names(spec: Nest, declared: Nest | None) -> list[str]:
    """The names of flat inputs: keys, or as the model declares them."""
    paths = [path for path, _ in leaves(spec, "")]
    if isinstance(spec, Mapping):
        return [path.strip("[]'\"") for path in paths]
    entries = tf.nest.flatten(declared) if declared is not None else []
    if len(entries) == len(paths):
        return [leaf.name or path for leaf, path in zip(entries, paths, strict=True)]
    return paths


def _value(pad: Pad, name: str, dtype: tf.DType) -> Any:
    value = pad.value
    if isinstance(value, Mapping):
        if name not in value:
            raise ValueError(
                f"mgpu.Pad received value={dict(value)!r:.80} without {name!r}. "
                "Expected a value for each input whose rows differ in length."
            )
        value = value[name]
    is_text = isinstance(value, str | bytes)
    if dtype == tf.string and (is_text or value == 0):
        return tf.compat.as_bytes(value or "")
    if dtype == tf.string or is_text or not _fits(value, dtype):
        raise ValueError(
            f"mgpu.Pad received value={value!r:.80}, which is not a value of "
            f"{dtype.name}, the dtype of input {name!r}."
        )
    return np.array(value).astype(dtype.as_numpy_dtype)[()]


def _fits(value: Any, dtype: tf.DType) -> bool:
    """Whether a number is one of a dtype; floats may be rounded."""
    with np.errstate(all="ignore"):
        given = np.array(value).astype(dtype.as_numpy_dtype)
    if dtype.is_floating or dtype.is_complex:
        return bool(np.isfinite(given)) or not np.isfinite(value)
    return bool(given == value)
