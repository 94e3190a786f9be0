"""The outputs of a model -> the columns of a file.

Guarantees:

* Names follow from the structure alone, never from values, and are the same in
  every run: `output` for one output, the keys of a dict, `output_0`, `output_1` for
  a list; deeper ones are joined with "_".
* A name can be a file's name on every system, and no two differ by case alone.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sinks.interface import Column
from keras_mgpu_strategy.types import Nest

TAKEN = ("row", "file", "zarr.json")
"""Columns of the tables themselves, and a file of zarr's."""

_LONGEST_NAME = 150
_UNSAFE = re.compile(r'[\x00-\x1f\x7f/\\:*?"<>|]')


def columns_of(outputs: Nest) -> tuple[Column, ...]:
    """Returns a column for each output, in the order of `tf.nest.flatten`.

    Args:
        outputs: Nest of arrays of shape `(rows, ...)`, of any number of rows.
    """
    paths = [_plain_name(path) for path in _paths(outputs)]
    arrays = [np.asarray(array) for array in tf.nest.flatten(outputs)]
    return tuple(
        Column(name, array.shape[1:], array.dtype.newbyteorder("="))
        for name, array in zip(unique(paths, TAKEN), arrays, strict=True)
    )


def structure_of(outputs: Nest) -> Any:
    """Returns the nest with the name of its column in place of each output.

    Dicts and lists alone, as JSON has them: tuples become lists.
    """
    names = iter([column.name for column in columns_of(outputs)])
    return _renamed(outputs, names)


def unique(names: Iterable[str], taken: Iterable[str] = ()) -> list[str]:
    """Returns the names, with `_2`, `_3` and so on behind those that are taken."""
    used = {name.casefold() for name in taken}
    result = []
    for name in names:
        free = _first_free(name, used)
        used.add(free.casefold())
        result.append(free)
    return result


def _first_free(name: str, used: set[str]) -> str:
    candidate, number = name, 1
    while candidate.casefold() in used:
        number += 1
        candidate = f"{name}_{number}"
    return candidate


def _paths(outputs: Nest) -> Iterator[str]:
    """A path for each output; the name of the whole is dropped where keys name it."""
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


def _plain_name(path: str) -> str:
    """Makes a path safe as the name of a file; the same for the same path."""
    name = path.encode("utf-8", "replace").decode("utf-8")
    name = _UNSAFE.sub("_", name).replace("..", "__").strip()
    # Leading dots hide files; zarr keeps names with two leading "_" for itself.
    name = re.sub(r"^(\.|__+)", "_", name)
    name = name.encode()[:_LONGEST_NAME].decode("utf-8", "ignore").rstrip(". ")
    return name or "output"
