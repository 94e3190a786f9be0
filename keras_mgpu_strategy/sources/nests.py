"""Nests of the user's own types, with a path to every leaf.

Leaves come in the order of `tf.nest.flatten`. Any mapping counts as a dict (also an
open `.npz` or HDF5 file). None is an absent input: no leaf, and an empty tuple in a
skeleton.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT, is_nest, map_nest
from keras_mgpu_strategy.types import Nest


def leaves(nest: Nest, path: str = "x") -> Iterator[tuple[str, Any]]:
    """Yields each path, such as `x['image'][0]`, and the leaf found there."""
    if not is_nest(nest):
        yield path, nest
        return
    for key in sorted(nest) if isinstance(nest, Mapping) else range(len(nest)):
        inner = nest[key]
        if inner is not None:
            yield from leaves(inner, f"{path}[{key!r}]")


def skeleton(nest: Nest) -> Nest:
    """Returns only the structure of `nest`, of dicts, lists and tuples, for `pack`."""

    def place(leaf: Any) -> Any:
        if leaf is None:
            return ABSENT
        return leaf if is_nest(leaf) else None

    return None if nest is None else map_nest(place, nest)


def pack(structure: Nest, flat: list[Any]) -> Nest:
    """Returns `flat`, in the order of `leaves`, in the structure of a skeleton."""
    return tf.nest.pack_sequence_as(structure, flat)
