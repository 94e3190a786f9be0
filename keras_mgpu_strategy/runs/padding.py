"""How the rows of an input are padded for a model: found out before anything runs."""

from collections.abc import Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import row_bytes
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.runs.padded import PaddedRows
from keras_mgpu_strategy.sources.lengths import chosen_lengths
from keras_mgpu_strategy.sources.nests import leaves
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.sources.ragged_pieces import FirstWindow
from keras_mgpu_strategy.types import Nest, Source
from keras_mgpu_strategy.types.ragged import Ragged


def padded_rows(
    source: Source, pad: Pad, backend: Backend
) -> tuple[Source, PaddedRows]:
    """The source, of which the first window has been read, and how rows are padded."""
    sizes = _bytes(source.spec, backend.output_shapes)
    first = FirstWindow(source, pad.window, sizes)
    values = _values(source.spec, first, pad, backend.input_spec)
    varies = [_varies(shape) for shape in tf.nest.flatten(backend.output_shapes or ())]
    lengths = _lengths(source.spec, first, pad, values)
    known = (tuple(values), sizes, tuple(varies), first.piece_rows)
    return first, PaddedRows(pad, lengths, *known)


def _bytes(spec: Nest, output_shapes: Nest | None) -> tuple[int, int]:
    """Bytes of inputs and declared outputs: of a row, and of each token of it."""
    shapes = [s for s in tf.nest.flatten(output_shapes or ()) if s.rank]
    flat = [*tf.nest.flatten(spec), *map(tf.TensorSpec, shapes)]
    varying = [leaf for leaf in flat if _varies(leaf.shape)]
    others = [leaf for leaf in flat if not _varies(leaf.shape)]
    return row_bytes(others), row_bytes(varying)


def _varies(shape: tf.TensorShape) -> bool:
    return shape.rank is not None and shape.rank > 1 and shape[1] is None


def _lengths(
    spec: Nest, first: FirstWindow, pad: Pad, values: list[Any]
) -> tuple[int, ...]:
    """The lengths that rows are padded to: one, if the model declares it."""
    declared = {
        leaf.shape[1]
        for leaf, value in zip(tf.nest.flatten(spec), values, strict=True)
        if value is not None and leaf.shape[1] is not None
    }
    if pad.lengths != "auto":
        return tuple(pad.lengths)
    return tuple(sorted(declared)) or chosen_lengths(first.lengths)


def _values(
    spec: Nest, first: FirstWindow, pad: Pad, declared: Nest | None
) -> list[Any]:
    """What each flat input is padded with; None for those that do not vary."""
    flat = tf.nest.flatten(spec)
    rows = tf.nest.flatten(first.rows.inputs) if first.rows else [None] * len(flat)
    names = _names(spec, declared)
    varying = [
        isinstance(row, Ragged) if row is not None else _varies(leaf.shape)
        for leaf, row in zip(flat, rows, strict=True)
    ]
    return [
        _value(pad, name, leaf.dtype) if own else None
        for own, name, leaf in zip(varying, names, flat, strict=True)
    ]


def _names(spec: Nest, declared: Nest | None) -> list[str]:
    """The names of flat inputs: keys, or as the model declares them."""
    entries = tf.nest.flatten(declared) if declared is not None else []
    paths = [path for path, _ in leaves(spec, "")]
    if isinstance(spec, Mapping):
        return [path.strip("[]'\"") for path in paths]
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
    if dtype == tf.string:
        text = "" if value == 0 else value
        return np.array([text.encode() if isinstance(text, str) else text], object)[0]
    found = np.array(value)
    given = found.astype(dtype.as_numpy_dtype)
    if found.dtype.kind in "US" or (given != found and found == found):
        raise ValueError(
            f"mgpu.Pad received value={value!r:.80}, which is not a value of "
            f"{dtype.name}, the dtype of input {name!r}."
        )
    return given[()]
