"""What the user's code has set on layers: found, looked into, and described.

Nothing that Keras keeps on a layer itself is found. Nothing is copied, converted or
called. Values that can be inspected have equal descriptions, in every process, exactly
if they are equal.
"""

import collections
import contextlib
import dis
import functools
import hashlib
import inspect
import types
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.digests.code import codes_of
from keras_mgpu_strategy.digests.packages import root_of
from keras_mgpu_strategy.models.libraries import LIBRARIES, is_library_class

# Names that Keras sets, but not as attributes in its methods: by the `History`
# callback, and by `tf_keras` (tried with 2.21) through `super().__setattr__`.
_SET_OTHERWISE = frozenset({"history", "_obj_reference_counts_dict"}).union(
    {"_non_trainable_weights", "_self_tracked_trackables", "_trainable_weights"}
)
# KerasHub keeps the `id` of layers there, which no other copy has (tested with 0.32).
_NOT_THE_USERS = ("_keras_mgpu_strategy_", "_functional_layer_ids")
_OWNERS = frozenset({*LIBRARIES, "tensorflow"})
_SEQUENCES = (list, tuple, set, frozenset, collections.deque)
_OPAQUE = frozenset({"builtins", "numpy", "pandas", "scipy", "tensorflow", *LIBRARIES})
_TABLES = (
    tf.lookup.StaticHashTable,
    tf.lookup.experimental.MutableHashTable,
    tf.lookup.experimental.DenseHashTable,
)


def own_attributes(layer: Any) -> dict[str, Any]:
    """Returns name -> value of what the user's code has set on a layer or model."""
    owners = [cls for cls in type(layer).__mro__ if root_of(cls) in _OWNERS]
    names = _SET_OTHERWISE.union(*map(_names_set_by, owners))
    return {
        name: value
        for name, value in vars(layer).items()
        if name not in names and not name.startswith(_NOT_THE_USERS)
    }


def reads(cls: type, name: str) -> bool:
    """Whether a user class's code mentions an attribute, or reads any by a string."""
    found = {word for owner in cls.__mro__ for word in _mentioned(owner)}
    return not found.isdisjoint({name, "getattr", "__dict__"})


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
    is_container = isinstance(value, (dict, *_SEQUENCES))
    is_plain = is_container or type(value).__name__ == "KerasTensor"
    return is_library_class(type(value)) and not is_plain


def holds_parts(value: Any) -> bool:
    """Whether a value belongs to one copy of a model; any other can be shared."""
    return any(map(is_part, reachable([value])))


def reachable(values: Iterable[Any]) -> Iterator[Any]:
    """Yields some values and what is in them, each once, without entering parts."""
    waiting, seen = collections.deque(values), set()
    while waiting:
        value = waiting.popleft()
        if id(value) in seen:
            continue
        seen.add(id(value))
        yield value
        if not is_part(value):
            waiting.extend(inner for _, inner in held_by(value))


def held_by(value: Any) -> Iterable[tuple[Any, Any]]:
    """Returns the keys and values that a container, a function or an object holds."""
    if isinstance(value, dict):
        return value.items()
    if isinstance(value, _SEQUENCES):
        return enumerate(value)
    if isinstance(value, types.MethodType):
        return [("self", value.__self__), ("func", value.__func__)]
    if isinstance(value, types.FunctionType):
        return _of_function(value)
    if isinstance(value, functools.partial):
        return [("func", value.func), *enumerate(value.args), *value.keywords.items()]
    if _is_compiled(value):
        return [("python_function", value.python_function)]
    return vars(value).items() if _is_users(value) else ()


def is_function(value: Any) -> bool:
    """Whether a value is code that may refer to what surrounds it."""
    kinds = types.FunctionType | types.MethodType | functools.partial
    return isinstance(value, kinds) or _is_compiled(value)


def _of_function(value: types.FunctionType) -> Iterator[tuple[Any, Any]]:
    for index, cell in enumerate(value.__closure__ or ()):
        with contextlib.suppress(ValueError):  # not set yet
            yield index, cell.cell_contents
    yield from enumerate(value.__defaults__ or (), start=1000)
    yield from (value.__kwdefaults__ or {}).items()


def _is_compiled(value: Any) -> bool:  # by `tf.function`
    return hasattr(type(value), "python_function")


def _is_users(value: Any) -> bool:
    if isinstance(value, type | types.ModuleType) or not hasattr(value, "__dict__"):
        return False
    holds_state = isinstance(value, tf.random.Generator)
    return holds_state or root_of(type(value)) not in _OPAQUE


@functools.cache
def _names_set_by(cls: type) -> frozenset[str]:
    steps = [step for code in _codes(cls) for step in dis.get_instructions(code)]
    return frozenset(step.argval for step in steps if step.opname == "STORE_ATTR")


@functools.cache
def _mentioned(cls: type) -> frozenset[str]:
    if root_of(cls) in _OPAQUE:
        return frozenset()
    return frozenset(name for code in _codes(cls) for name in code.co_names)


def _codes(cls: type) -> Iterator[types.CodeType]:
    members: list[Any] = []
    for value in vars(cls).values():
        is_property = isinstance(value, property)
        members += (value.fget, value.fset) if is_property else (value,)
    for member in members:
        function = inspect.unwrap(getattr(member, "__func__", member))
        if isinstance(function, types.FunctionType):
            yield from codes_of(function)


def type_name(value: Any) -> str:
    """Describes an opaque value, in any process."""
    return type(value).__name__


def attributes_in_process(layer: Any) -> dict[str, Any]:
    """As `described_attributes`, with the identity of functions and opaque objects."""
    return described_attributes(layer, lambda value: f"{type_name(value)} {id(value)}")


def described_attributes(
    layer: Any, opaque: Callable[[Any], str] = type_name
) -> dict[str, Any]:
    """Returns name -> description in plain values; `opaque` describes the rest."""
    if is_library_class(type(layer)):
        return {}
    return {k: described(v, opaque) for k, v in own_attributes(layer).items()}


def described(
    value: Any,
    opaque: Callable[[Any], str] = type_name,
    seen: set[int] | None = None,
) -> Any:
    """Describes one value, as in `described_attributes`."""
    seen = set() if seen is None else seen
    if value is None or isinstance(value, bool | int | float | str):
        return value
    if isinstance(value, np.ndarray | np.generic | tf.Tensor | bytes):
        return _described_array(value, opaque)
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
    inner = [(repr(key), described(v, opaque, seen)) for key, v in held_by(value)]
    return [type_name(value), inner] if inner else opaque(value)


def _described_array(value: Any, opaque: Callable[[Any], str]) -> Any:
    if tf.is_tensor(value) and not hasattr(value, "numpy"):
        return type_name(value)  # left from tracing
    array = np.asarray(value)
    if array.dtype == object:
        return opaque(value)
    content = hashlib.sha256(np.ascontiguousarray(array).tobytes()).hexdigest()
    return [str(array.dtype), [*array.shape], content]
