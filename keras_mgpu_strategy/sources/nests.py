"""Nests of the user's own types, with a path to every leaf.

Guarantees:

* Leaves come in the order of `tf.nest.flatten`: the keys of a mapping sorted.
* Any mapping counts as a dict (also an open `.npz` or HDF5 file); a skeleton
  consists of plain dicts, lists and tuples.
* None within a nest is an absent input: it is not a leaf, and is an empty tuple in a
  skeleton.
"""

from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.element_forms import ABSENT, SparseRows
from keras_mgpu_strategy.types import Nest


def is_nest(x: Any) -> bool:
    """Whether `x` is a mapping, a list or a tuple."""
    # One kind of SciPy sparse matrix is a dict of places and values.
    is_leaf = hasattr(x, "tocsr") or isinstance(x, SparseRows)
    return isinstance(x, (Mapping, list, tuple)) and not is_leaf


def leaves(nest: Nest, path: str = "x") -> Iterator[tuple[str, Any]]:
    """Yields each path, such as `x['image'][0]`, and the leaf found there."""
    if not is_nest(nest):
        yield path, nest
        return
    for key in _keys(nest):
        inner = nest[key]
        if inner is not None:
            yield from leaves(inner, f"{path}[{key!r}]")


def skeleton(nest: Nest) -> Nest:
    """Returns only the structure of `nest`, for `pack`."""
    if not is_nest(nest):
        return None
    if isinstance(nest, Mapping):
        return {key: _inner(nest[key]) for key in nest}
    if isinstance(nest, tuple) and hasattr(nest, "_fields"):
        return type(nest)(*map(_inner, nest))
    return type(nest)(map(_inner, nest))


def pack(structure: Nest, flat: list[Any]) -> Nest:
    """Returns `flat`, in the order of `leaves`, in the structure of a skeleton."""
    return tf.nest.pack_sequence_as(structure, flat)


def _inner(nest: Nest) -> Nest:
    return ABSENT if nest is None else skeleton(nest)


def _keys(nest: Nest) -> Any:
    return sorted(nest) if isinstance(nest, Mapping) else range(len(nest))
