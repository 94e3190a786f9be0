"""The outputs of a model -> the columns of a file.

Names depend on the structure alone: `output`, the keys of a dict, `output_0` and so on
for a list; deeper ones are joined with "_". They are valid file names on every system,
and no two differ only in case.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.outputs.column_names import NAMES, TAKEN, plain_name, unique
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.rows import as_rows
from keras_mgpu_strategy.types import Nest, Ragged


def columns_of(outputs: Nest) -> tuple[Column, ...]:
    """Returns a column for each output, in the order of `tf.nest.flatten`."""
    arrays = list(map(as_rows, tf.nest.flatten(outputs)))
    return tuple(
        Column(name, array.shape[1:], _dtype(array))
        for name, array in zip(_names(outputs), arrays, strict=True)
    )


def structure_of(outputs: Nest) -> Any:
    """Returns the nest of the outputs' names; of dicts and lists alone, as in JSON."""
    return _renamed(outputs, iter(_names(outputs)))


def describe(layout: Layout) -> list[list[Any]]:
    """Describes the columns of a file."""
    columns = [[c.name, list(c.row_shape), c.dtype.name] for c in layout.columns]
    return [*columns, *([NAMES] if layout.has_names else [])]


def _dtype(array: np.ndarray | Ragged) -> np.dtype:
    is_text = array.dtype.kind in "SU"
    return np.dtype(object) if is_text else array.dtype.newbyteorder("=")


def _names(outputs: Nest) -> list[str]:
    return unique(map(plain_name, _paths(outputs)), TAKEN)


def _paths(nest: Nest, path: str | None = None) -> Iterator[str]:
    """A path for each output; the name of the whole is left out if keys name it."""
    if isinstance(nest, Mapping):
        prefix = "" if path is None else f"{path}_"
        items = [(key, nest[key]) for key in sorted(nest)]
    elif isinstance(nest, (list, tuple)):
        prefix, items = f"{'output' if path is None else path}_", enumerate(nest)
    else:
        yield "output" if path is None else path
        return
    for key, value in items:
        yield from _paths(value, f"{prefix}{key}")


def _renamed(nest: Nest, names: Iterator[str]) -> Any:
    if isinstance(nest, Mapping):
        return {str(key): _renamed(nest[key], names) for key in sorted(nest)}
    if isinstance(nest, (list, tuple)):
        return [_renamed(value, names) for value in nest]
    return next(names)
