"""Attributes of layers that are neither Keras' own nor in a configuration.

Guarantees:

* What the user's code has set on a layer is found, but nothing that Keras keeps there
  itself: the names that Keras' own methods set are read from their code, so no list of
  private names has to be kept up to date.
* Nothing is copied, converted or called here.
"""

import collections
import dis
import functools
import inspect
import types
from collections.abc import Iterable, Iterator
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.libraries import (
    LIBRARIES,
    is_library_class,
    root_module,
)

# Names that Keras sets, but not as attributes in its methods: by the `History`
# callback, and by `tf_keras` (tried with 2.21) through `super().__setattr__`.
_SET_OTHERWISE = frozenset(
    {
        "history",
        "_non_trainable_weights",
        "_obj_reference_counts_dict",
        "_self_tracked_trackables",
        "_trainable_weights",
    }
)
# KerasHub keeps the `id` of layers there, which no other copy has (tested with 0.32).
_NOT_THE_USERS = ("_keras_mgpu_strategy_", "_functional_layer_ids")
_OWNERS = frozenset({*LIBRARIES, "tensorflow"})
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
_CONTAINERS = (dict, *_SEQUENCES)
_OPAQUE = frozenset({"builtins", "numpy", "pandas", "scipy", "tensorflow", *LIBRARIES})


def own_attributes(layer: Any) -> dict[str, Any]:
    """Returns name -> value of what the user's code has set on a layer or model."""
    names = _names_of_keras(type(layer))
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in names and not name.startswith(_NOT_THE_USERS)
    }


def reads(cls: type, name: str) -> bool:
    """Whether a user class's code mentions an attribute, or reads any by a string."""
    found = {word for owner in cls.__mro__ for word in _mentioned(owner)}
    return name in found or "getattr" in found or "__dict__" in found


def is_variable(value: Any) -> bool:
    """Whether a value is a variable of TensorFlow or of Keras."""
    if isinstance(value, tf.Variable | tf.distribute.DistributedValues):
        return True
    return is_library_class(type(value)) and hasattr(type(value), "assign")


def is_layer(value: Any) -> bool:
    """Whether a value is a layer or model of either Keras."""
    # Checked on the class, since a variable on several devices forwards to its copies.
    return hasattr(type(value), "_flatten_layers")


def holds_layers(value: Any) -> bool:
    """Whether a value is a layer, or a list, tuple or dict that holds one."""
    if isinstance(value, dict):
        return any(map(holds_layers, value.values()))
    if isinstance(value, list | tuple):
        return any(map(holds_layers, value))
    return is_layer(value)


def is_part(value: Any) -> bool:
    """Whether a value is a layer, a variable or another object of Keras."""
    if is_variable(value) or is_layer(value):
        return True
    # Keras wraps lists and dicts that are set on layers; its symbolic tensors are
    # left over from tracing.
    is_plain = isinstance(value, _CONTAINERS) or type(value).__name__ == "KerasTensor"
    return is_library_class(type(value)) and not is_plain


def holds_parts(value: Any) -> bool:
    """Whether a value is or holds layers, variables or other objects of Keras.

    Such a value belongs to one copy of a model. Any other can be shared by copies.
    """
    return any(map(is_part, reachable([value])))


def reachable(values: Iterable[Any]) -> Iterator[Any]:
    """Yields some values and what they hold, at any depth, each once.

    In a fixed order. Layers, variables and other objects of Keras are not entered.
    """
    waiting, seen = collections.deque(values), set()
    while waiting:
        value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if not is_part(value):
            waiting.extend(inner for _, inner in held_by(value))


def held_by(value: Any) -> Iterator[tuple[Any, Any]]:
    """Yields the keys and values that a container, a function or an object holds."""
    for applies, held in _HOLDERS:
        if applies(value):
            yield from held(value)
            return


def is_function(value: Any) -> bool:
    """Whether a value is code that may refer to what surrounds it."""
    kinds = types.FunctionType | types.MethodType | functools.partial
    return isinstance(value, kinds) or _is_compiled(value)


def _of_function(value: types.FunctionType) -> Iterator[tuple[Any, Any]]:
    for index, cell in enumerate(value.__closure__ or ()):
        try:
            yield index, cell.cell_contents
        except ValueError:  # not set yet
            continue
    yield from enumerate(value.__defaults__ or (), start=1000)
    yield from (value.__kwdefaults__ or {}).items()


def _of_partial(value: functools.partial) -> Iterator[tuple[Any, Any]]:
    yield "func", value.func
    yield from enumerate(value.args)
    yield from value.keywords.items()


def _is_compiled(value: Any) -> bool:
    """Whether a value is what `tf.function` makes of a function."""
    return hasattr(type(value), "python_function")


def _is_users(value: Any) -> bool:
    if isinstance(value, type | types.ModuleType) or not hasattr(value, "__dict__"):
        return False
    holds_state = isinstance(value, tf.random.Generator)
    return holds_state or root_module(type(value)) not in _OPAQUE


_HOLDERS = (
    (lambda x: isinstance(x, dict), lambda x: x.items()),
    (lambda x: isinstance(x, _SEQUENCES), enumerate),
    (
        lambda x: isinstance(x, types.MethodType),
        lambda x: [("self", x.__self__), ("func", x.__func__)],
    ),
    (lambda x: isinstance(x, types.FunctionType), _of_function),
    (lambda x: isinstance(x, functools.partial), _of_partial),
    (
        _is_compiled,
        lambda x: [("python_function", x.python_function)],
    ),
    (_is_users, lambda x: vars(x).items()),
)


@functools.cache
def _names_of_keras(cls: type) -> frozenset[str]:
    """Names of attributes that are set by the Keras classes among a class's bases."""
    owners = [base for base in cls.__mro__ if root_module(base) in _OWNERS]
    return _SET_OTHERWISE.union(*map(_names_set_by, owners))


@functools.cache
def _names_set_by(cls: type) -> frozenset[str]:
    codes = [code for function in _functions(cls) for code in _codes(function)]
    return frozenset(
        step.argval
        for code in codes
        for step in dis.get_instructions(code)
        if step.opname == "STORE_ATTR"
    )


@functools.cache
def _mentioned(cls: type) -> frozenset[str]:
    if root_module(cls) in _OPAQUE:
        return frozenset()
    codes = [code for function in _functions(cls) for code in _codes(function)]
    return frozenset(name for code in codes for name in code.co_names)


def _functions(cls: type) -> Iterator[types.FunctionType]:
    for value in vars(cls).values():
        accessors = (
            (value.fget, value.fset) if isinstance(value, property) else (value,)
        )
        for accessor in accessors:
            inner: Any = getattr(accessor, "__func__", accessor)
            function = inspect.unwrap(inner)
            if isinstance(function, types.FunctionType):
                yield function


def _codes(function: types.FunctionType) -> Iterator[types.CodeType]:
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting += [part for part in code.co_consts if isinstance(part, types.CodeType)]
