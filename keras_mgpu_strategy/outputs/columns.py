"""The outputs of a model -> the columns of a file.

Guarantees:

* Names depend on the structure alone, never on values, and are the same in
  every run: `output` for one output, the keys of a dict, `output_0`, `output_1` for
  a list; deeper ones are joined with "_".
* A name is a valid file name on every system, and no two differ only in case
  (`column_names.py`).
"""

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.outputs.column_names import TAKEN, plain_name, unique
from keras_mgpu_strategy.outputs.descriptions import NAMES
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.types import Nest


def columns_of(outputs: Nest) -> tuple[Column, ...]:
    """Returns a column for each output, in the order of `tf.nest.flatten`.

    Args:
        outputs: Nest of arrays of shape `(rows, ...)`, with any number of rows.
    """
    paths = [plain_name(path) for path in _paths(outputs)]
    arrays = [np.asarray(array) for array in tf.nest.flatten(outputs)]
    return tuple(
        Column(name, array.shape[1:], _dtype(array))
        for name, array in zip(unique(paths, TAKEN), arrays, strict=True)
    )


def _dtype(array: np.ndarray) -> np.dtype:
    is_text = array.dtype.kind in "SU"
    return np.dtype(object) if is_text else array.dtype.newbyteorder("=")


def structure_of(outputs: Nest) -> Any:
    """Returns the nest with each output replaced by the name of its column.

    Only dicts and lists, as in JSON: tuples become lists.
    """
    names = iter([column.name for column in columns_of(outputs)])
    return _renamed(outputs, names)


def _paths(outputs: Nest) -> Iterator[str]:
    """A path for each output; the name of the whole is dropped if keys name it."""
    if not _is_nest(outputs):
        yield "output"
        return
    start = "" if isinstance(outputs, Mapping) else "output_"
    for key, value in _items(outputs):
        yield from (f"{start}{key}{rest}" for rest in _rests(value))


def _rests(value: Any) -> Iterator[str]:
    if not _is_nest(value):
        yield ""
        return
    for key, inner in _items(value):
        yield from (f"_{key}{rest}" for rest in _rests(inner))


def _renamed(nest: Nest, names: Iterator[str]) -> Any:
    if not _is_nest(nest):
        return next(names)
    renamed = {str(key): _renamed(value, names) for key, value in _items(nest)}
    return renamed if isinstance(nest, Mapping) else list(renamed.values())


def _is_nest(x: Any) -> bool:
    return isinstance(x, (Mapping, list, tuple))


def _items(nest: Nest) -> Iterable[tuple[Any, Any]]:
    """Keys and values in the order of `tf.nest`, which sorts a dict's keys."""
    if isinstance(nest, Mapping):
        return [(key, nest[key]) for key in sorted(nest)]
    return enumerate(nest)


def describe(layout: Layout) -> list[list[Any]]:
    """Describes the columns of a file."""
    columns = [[c.name, list(c.row_shape), c.dtype.name] for c in layout.columns]
    return [*columns, *([NAMES] if layout.has_names else [])]
