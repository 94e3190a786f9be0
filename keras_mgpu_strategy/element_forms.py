"""The forms in which Keras passes elements of the user's input to a step.

Guarantee: what holds neither None nor sparse rows is left as it is. In `tf.nest` None
is a leaf, which has no rows; here an empty tuple takes its place. Sparse rows travel
as dense ones, which have one shape whatever they hold.
"""

from collections.abc import Mapping
from typing import Any, NamedTuple

import tensorflow as tf

ABSENT = ()
"""In place of None."""


class SparseRows(NamedTuple):
    """Rows that the model is given as a `tf.SparseTensor`.

    Args:
        values: The dense rows.
        places: Of the same shape, True where a value (possibly zero) is stored.
    """

    values: Any
    places: Any


class OneBatch(tuple[Any, ...]):
    """`(x,)` as `predict_on_batch` passes it, which stays in this form."""


def packed(x: Any) -> Any:
    """Returns x alone in the form of an element: `(x,)` if x is a list or tuple."""
    return (as_tuples(x),) if isinstance(x, list | tuple) else as_tuples(x)


def as_tuples(nest: Any) -> Any:
    """Returns a nest with tuples in place of lists, as datasets need them."""
    if isinstance(nest, list):
        return tuple(map(as_tuples, nest))
    if isinstance(nest, tuple) and not hasattr(nest, "_fields"):
        return tuple(map(as_tuples, nest))
    if isinstance(nest, dict):
        return {key: as_tuples(inner) for key, inner in nest.items()}
    return nest


def x_of(element: Any) -> Any:
    """Returns x of `x`, `(x,)`, `(x, y)` and so on."""
    return element[0] if isinstance(element, list | tuple) and element else element


def without_none(nest: Any) -> Any:
    """Returns a nest with an empty tuple in place of each None."""
    return _map(lambda leaf: ABSENT if leaf is None else leaf, nest)


def as_given(nest: Any) -> Any:
    """Returns a nest of tensors as Keras passes it, with None and sparse tensors."""
    return _map(_given, nest)


def _given(leaf: Any) -> Any:
    if isinstance(leaf, SparseRows):
        return _sparse(leaf)
    return None if isinstance(leaf, tuple) else leaf


def _sparse(rows: SparseRows) -> tf.SparseTensor:
    places = tf.where(rows.places)
    values = tf.gather_nd(rows.values, places)
    return tf.SparseTensor(places, values, tf.shape(rows.values, tf.int64))


def _map(function: Any, nest: Any) -> Any:
    if isinstance(nest, SparseRows):
        return function(nest)
    if isinstance(nest, Mapping) and nest:
        return {key: _map(function, inner) for key, inner in nest.items()}
    if isinstance(nest, list | tuple) and nest:
        inner = [_map(function, part) for part in nest]
        # A named tuple takes its fields as separate arguments.
        return type(nest)(*inner) if hasattr(nest, "_fields") else type(nest)(inner)
    return function(nest)
