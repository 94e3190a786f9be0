"""State that layers hold outside of configurations and of Keras' own variables.

Attributes without layers and variables become the original's objects. Variables in
attributes get the original's values; layers are the rebuilt ones. Functions must refer
to layers as the original's do. Anything else is an error that names the attribute.
"""

import copy
import dataclasses
import types
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.attributes import (
    held_by,
    holds_parts,
    is_function,
    is_layer,
    is_variable,
    own_attributes,
    reads,
)
from keras_mgpu_strategy.models.libraries import is_library_class, layers_of
from keras_mgpu_strategy.models.precision import is_float_policy
from keras_mgpu_strategy.models.variables import (
    assign,
    host_value,
    value_of,
    variables_of,
)

_MISSING = object()


def carry_attributes(
    source: Any,
    target: Any,
    strategy: tf.distribute.Strategy,
    precision: str | None,
    *,
    is_early: bool = False,
) -> None:
    """Gives a copy's layers what the user's code has set on the original's.

    Raises ValueError for what code reads but cannot be carried over; not if the copy
    `is_early`, not built yet. With a precision, what looks like a dtype stays.
    """
    variables = variables_of(source)
    pairs = list(zip(layers_of(source), layers_of(target), strict=not is_early))
    known = [] if is_early else zip(variables, variables_of(target), strict=True)
    counterparts = {id(before): after for before, after in [*pairs, *known]}
    later = set(map(id, variables if is_early else ()))
    carrier = _Carrier(counterparts, strategy, precision, later)
    for before, after in pairs:
        if is_library_class(type(before)) or type(before) is not type(after):
            continue
        for name, value in own_attributes(before).items():
            is_made = is_early and vars(after).get(name) is not None
            if is_made and holds_parts(value):
                continue
            try:
                carrier.carry_attribute(after, name, value)
            except _CannotHoldError as error:
                if not is_early and reads(type(before), name):
                    raise ValueError(
                        f"attribute {name!r} of layer {before.name!r} "
                        f"({type(before).__name__}) holds {error}, which the rebuilt "
                        "layer lacks. Make it in `__init__` or `build`, from arguments "
                        "that `get_config` returns"
                    ) from None


class _CannotHoldError(Exception):
    """A container that cannot be changed or copied would have to hold another value."""


@dataclasses.dataclass(frozen=True)
class _Carrier:
    """Walks an attribute of the original and of its copy, side by side."""

    counterparts: dict[int, Any]
    strategy: tf.distribute.Strategy
    precision: str | None
    later: set[int]
    seen: set[int] = dataclasses.field(default_factory=set)

    def carry_attribute(self, layer: Any, name: str, value: Any) -> None:
        before = vars(layer).get(name, _MISSING)
        new = self._carried(value, before)
        if new is not before:
            vars(layer)[name] = new  # a built layer refuses lists by `setattr`

    def _carried(self, before: Any, after: Any) -> Any:
        """What the copy shall hold where it holds `after`; `after` if that may stay."""
        if not holds_parts(before):
            is_dtype = self.precision and is_float_policy(before)
            return after if is_dtype or _are_same(before, after) else before
        if id(before) in self.counterparts:
            return self.counterparts[id(before)]
        if is_variable(before):
            return self._variable(before, after)
        if is_layer(before):
            if variables_of(before):
                raise _CannotHoldError(
                    f"the layer {before.name!r}, which Keras does not track"
                )
            return before
        if isinstance(before, types.MethodType):
            owner = self.counterparts.get(id(before.__self__))
            if owner is not None:
                return types.MethodType(before.__func__, owner)
        # Metrics, initializers and the like. Keras wraps lists and dicts.
        if is_library_class(type(before)) and not isinstance(before, dict | list):
            return before if after is None or after is _MISSING else after
        return self._container(before, after)

    def _variable(self, before: Any, after: Any) -> Any:
        if id(before) in self.later:
            raise _CannotHoldError("a weight that is made later")
        value: Any = host_value(before)
        plain = value_of(before)
        if not is_variable(after):
            names = ("trainable", "dtype", "aggregation", "synchronization")
            with self.strategy.scope():
                made = tf.Variable(value, **{key: getattr(plain, key) for key in names})
                return made if plain is before else type(before)(made)
        if after.shape != before.shape or after.dtype != before.dtype:
            raise _CannotHoldError(
                f"a variable of shape {tuple(before.shape)} and dtype {before.dtype}"
            )
        assign(after, value)
        return after

    def _container(self, before: Any, after: Any) -> Any:
        if before is after or id(before) in self.seen:
            return after
        self.seen.add(id(before))
        is_there = _are_alike(before, after)
        held = dict(held_by(after)) if is_there else {}
        copied = after if is_there else _copied(before)
        for key, value in held_by(before):
            inner = held.get(key, _MISSING)
            new = self._carried(value, inner)
            if new is not inner:
                _put(copied, key, new, value)
        if is_there or not isinstance(before, tuple):
            return copied
        return type(before)(*copied) if hasattr(before, "_fields") else tuple(copied)


def _are_same(before: Any, after: Any) -> bool:
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
        return _are_alike(before, after) and all(
            key in others and _are_same(value, others[key]) for key, value in inner
        )
    except (TypeError, ValueError, RecursionError):
        return False


def _are_alike(before: Any, after: Any) -> bool:
    if isinstance(before, dict):
        return isinstance(after, dict) and before.keys() == after.keys()
    if isinstance(before, list | tuple | set | frozenset):
        return isinstance(after, type(before)) and len(before) == len(after)
    if is_function(before):
        return getattr(before, "__code__", None) == getattr(after, "__code__", None)
    return type(before) is type(after)


def _copied(value: Any) -> Any:
    if isinstance(value, dict):
        return dict(value)
    if isinstance(value, list | tuple):
        return list(value)
    if is_function(value) or not hasattr(value, "__dict__"):
        raise _CannotHoldError(f"a {type(value).__name__} of layers or variables")
    return copy.copy(value)


def _put(container: Any, key: Any, new: Any, original: Any) -> None:
    if isinstance(container, dict):
        dict.__setitem__(container, key, new)
    elif isinstance(container, list):
        list.__setitem__(container, key, new)
    elif not is_function(container) and hasattr(container, "__dict__"):
        vars(container)[key] = new
    else:
        raise _CannotHoldError(f"{original!r:.60} next to layers or variables")
