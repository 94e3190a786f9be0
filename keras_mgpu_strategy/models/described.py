"""What the user's code has set on layers, as comparable values.

Guarantee: equal arrays, numbers, strings, tables, and containers and objects of these
have equal descriptions in every process; different ones have different descriptions.
How functions and anything else are described is up to the caller.
"""

import hashlib
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.attributes import (
    held_by,
    is_function,
    is_part,
    is_variable,
    own_attributes,
)
from keras_mgpu_strategy.models.libraries import is_library_class

_TABLES = (
    tf.lookup.StaticHashTable,
    tf.lookup.experimental.MutableHashTable,
    tf.lookup.experimental.DenseHashTable,
)


def type_name(value: Any) -> str:
    """Describes an opaque value, in any process."""
    return type(value).__name__


def identity(value: Any) -> str:
    """Describes an opaque value within a process; the caller keeps its layer alive."""
    return f"{type_name(value)} {id(value)}"


def attributes_in_process(layer: Any) -> dict[str, Any]:
    """As `described_attributes`, but tells functions and objects apart by identity."""
    return described_attributes(layer, identity)


def described_attributes(
    layer: Any, opaque: Callable[[Any], str] = type_name
) -> dict[str, Any]:
    """Returns name -> description, made of plain dicts, lists, strings and numbers.

    Args:
        layer: Layer or model. Keras' own classes read no such attributes.
        opaque: Describes a value whose content cannot be inspected.
    """
    if is_library_class(type(layer)):
        return {}
    items = own_attributes(layer).items()
    return {name: _described(value, opaque, set()) for name, value in items}


def described(value: Any) -> Any:
    """Returns the description of one value, as in `described_attributes`."""
    return _described(value, type_name, set())


def _described(value: Any, opaque: Callable[[Any], str], seen: set[int]) -> Any:
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | tf.Tensor | bytes):
        return _array(value, opaque)
    if isinstance(value, _TABLES):
        keys, values = (tensor.numpy().tolist() for tensor in value.export())
        return sorted(map(repr, zip(keys, values, strict=True)))
    if is_variable(value):  # of any class; its value is compared elsewhere
        return "variable"
    if is_part(value) or id(value) in seen:
        return type_name(value)
    if is_function(value):
        return opaque(value)
    seen.add(id(value))
    inner = [(repr(key), _described(v, opaque, seen)) for key, v in held_by(value)]
    return [type_name(value), inner] if inner else opaque(value)


def _array(value: Any, opaque: Callable[[Any], str]) -> Any:
    if tf.is_tensor(value) and not hasattr(value, "numpy"):
        return type_name(value)  # left from tracing
    array = np.asarray(value)
    if array.dtype == object:
        return opaque(value)
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return [str(array.dtype), [*array.shape], content]
