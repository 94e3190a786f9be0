"""The forms in which Keras passes elements of the user's input to a step.

What holds neither None nor sparse rows is left as it is. None, a leaf of `tf.nest`
without rows, becomes an empty tuple; sparse rows travel as dense ones.
"""

from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import tensorflow as tf

ABSENT = ()
"""In place of None."""


class SparseRows(NamedTuple):
    """Rows of a `tf.SparseTensor`, dense; `places` is True where a value is stored."""

    values: Any
    places: Any


class OneBatch(tuple[Any, ...]):
    """`(x,)` as `predict_on_batch` passes it, which stays in this form."""


def packed(x: Any) -> Any:
    """Returns x alone in the form of an element: `(x,)` if x is a list or tuple."""
    return (as_tuples(x),) if isinstance(x, list | tuple) else as_tuples(x)


def as_tuples(nest: Any) -> Any:
    """Returns a nest with tuples in place of lists, as datasets need them."""
    if isinstance(nest, list | tuple) and not hasattr(nest, "_fields"):
        return tuple(map(as_tuples, nest))
    if isinstance(nest, dict):
        return {key: as_tuples(inner) for key, inner in nest.items()}
    return nest


def x_of(element: Any) -> Any:
    """Returns x of `x`, `(x,)`, `(x, y)` and so on."""
    return element[0] if isinstance(element, list | tuple) and element else element


def without_none(nest: Any) -> Any:
    """Returns a nest with an empty tuple in place of each None."""
    return map_nest(lambda leaf: ABSENT if leaf is None else leaf, nest)


def as_given(nest: Any) -> Any:
    """Returns a nest of tensors as Keras passes it, with None and sparse tensors."""

    def given(leaf: Any) -> Any:
        if not isinstance(leaf, SparseRows):
            return None if isinstance(leaf, tuple) else leaf
        places = tf.where(leaf.places)
        values = tf.gather_nd(leaf.values, places)
        return tf.SparseTensor(places, values, tf.shape(leaf.values, tf.int64))

    return map_nest(given, nest)


def is_nest(x: Any) -> bool:
    """Whether `x` is a mapping, a list or a tuple."""
    # One kind of SciPy sparse matrix is a dict of places and values.
    is_leaf = hasattr(x, "tocsr") or isinstance(x, SparseRows)
    return isinstance(x, Mapping | list | tuple) and not is_leaf


def map_nest(function: Callable[[Any], Any], nest: Any) -> Any:
    """Applies a function to leaves and empty containers; mappings become dicts."""
    # Entries count, not truth: an open archive can be asked for its keys alone.
    if not is_nest(nest) or not len(nest):
        return function(nest)
    if isinstance(nest, Mapping):
        return {key: map_nest(function, nest[key]) for key in nest}
    inner = [map_nest(function, part) for part in nest]
    # A named tuple takes its fields as separate arguments.
    return type(nest)(*inner) if hasattr(nest, "_fields") else type(nest)(inner)
