"""Containers, objects and functions that hold parts of a model, compared and copied.

What they hold is identified by the keys of `attributes.held_by`.
"""

import copy
import functools
from collections.abc import Callable
from typing import Any, TypeAlias

import numpy as np

from keras_mgpu_strategy.models.attributes import held_by, is_function

Put: TypeAlias = Callable[[Any], None]
"""Replaces a value with another one."""


class CannotHold(Exception):
    """A container would have to hold another value, but cannot be changed or copied."""


def are_same(before: Any, after: Any) -> bool:
    """Whether two values without layers and variables are known to be equal."""
    if before is after:
        return True
    if type(before) is not type(after):
        return False
    try:
        inner = list(held_by(before))
        if not inner:
            return bool(np.all(before == after))
        others = dict(held_by(after))
        return are_alike(before, after) and all(
            key in others and are_same(value, others[key]) for key, value in inner
        )
    except (TypeError, ValueError, RecursionError):
        return False


def are_alike(before: Any, after: Any) -> bool:
    """Whether two values hold equally many others, under the same keys."""
    if isinstance(before, dict):
        return isinstance(after, dict) and before.keys() == after.keys()
    if isinstance(before, list | tuple | set | frozenset):
        return isinstance(after, type(before)) and len(before) == len(after)
    if is_function(before):
        return getattr(before, "__code__", None) == getattr(after, "__code__", None)
    return type(before) is type(after)


def emptied(value: Any) -> Any:
    """A copy of a container or an object, to be filled; a list for a tuple.

    Raises:
        CannotHold: If it is unknown how to copy it.
    """
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    if is_function(value) or not hasattr(value, "__dict__"):
        raise CannotHold(f"a {type(value).__name__} of layers or variables")
    return copy.copy(value)


def filled(value: Any, copied: Any) -> Any:
    """What `emptied` returned for a value, in the value's own type."""
    if not isinstance(value, tuple):
        return copied
    return type(value)(*copied) if hasattr(value, "_fields") else tuple(copied)


def setter(container: Any, key: Any, value: Any) -> Put:
    """Returns what replaces the value held under a key."""
    if isinstance(container, dict):
        return functools.partial(dict.__setitem__, container, key)
    if isinstance(container, list):
        return functools.partial(list.__setitem__, container, key)
    if not is_function(container) and hasattr(container, "__dict__"):
        return lambda new: vars(container).update({key: new})

    def refuse(_: Any) -> None:
        raise CannotHold(f"{value!r:.60} beside layers or variables")

    return refuse
