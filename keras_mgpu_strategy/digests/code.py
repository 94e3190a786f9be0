"""A digest of what functions and classes compute, with closures and used globals.

Equal code has one digest in every process of a version of Python, whatever its file,
comments and local names. What it refers to counts, too; packages by name and version.
Nothing is run except pickling and copying; opaque values count by class.
"""

import copyreg
import dis
import functools
import hashlib
import types
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.digests.packages import is_installed, name_of, root_of
from keras_mgpu_strategy.digests.samples import digest_of_array

_CLOSED = frozenset({"numpy", "random", "tensorflow", "torch"})
"""Packages whose objects do not show what they hold, but for arrays."""
_PLAIN = (bool, int, float, complex, str, bytes, type(None), type(...))
_LOADS = frozenset({"LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS"})
_MOST_PARTS = 100_000
_MOST_LEVELS = 100  # far from the depth at which Python gives up
_NO_MEMBERS = frozenset(
    {"__annotations__", "__annotate__", "__annotate_func__", "__dict__", "__doc__"}
    | {"__firstlineno__", "__module__", "__qualname__", "__slotnames__"}
    | {"__static_attributes__", "__weakref__", "_abc_impl"}
)
"""Of a class, written by Python itself."""


def digest_of_code(value: Any) -> str:
    """Returns a hexadecimal SHA-256 of a value."""
    return _Walk().digest(value)


def codes_of(function: Any) -> Iterator[types.CodeType]:
    """The code of a function and of those defined in it."""
    waiting = [function.__code__]
    while waiting:
        code = waiting.pop()
        yield code
        waiting.extend(x for x in code.co_consts if isinstance(x, types.CodeType))


class _Walk:
    """Digests values from the inside out, each of them once."""

    def __init__(self) -> None:
        self._found: dict[int, str] = {}
        self._above: list[int] = []
        self._kept: list[Any] = []  # otherwise another value could get its id
        self._kinds: tuple[tuple[Any, Callable[[Any], Any]], ...] = (
            (types.FunctionType, _function),
            (types.MethodType, lambda x: [x.__func__, x.__self__]),
            (types.CodeType, _code),
            (types.BuiltinFunctionType, name_of),
            (type, _class),
            ((staticmethod, classmethod), lambda x: [x.__func__]),
            (property, lambda x: [x.fget, x.fset]),
            (functools.partial, lambda x: [x.func, x.args, x.keywords]),
            (
                Mapping,
                lambda x: sorted(f"{self.digest(k)}: {self.digest(x[k])}" for k in x),
            ),
            ((list, tuple), list),
            ((set, frozenset), lambda x: sorted(map(self.digest, x))),
        )

    def digest(self, value: Any) -> str:
        if isinstance(value, np.generic):
            value = value.item()
        if type(value) in _PLAIN:
            return repr(value)
        if isinstance(value, types.ModuleType):
            return "known"
        key = id(value)
        if key in self._above:
            return f"{len(self._above) - self._above.index(key)} above"
        if key not in self._found:
            if len(self._found) > _MOST_PARTS or len(self._above) > _MOST_LEVELS:
                return "and so on"
            self._kept.append(value)
            self._above.append(key)
            parts = self._parts(value)
            if isinstance(parts, list):
                parts = [self.digest(part) for part in parts]
            text = repr(parts).encode("utf-8", "backslashreplace")
            self._found[key] = hashlib.sha256(text).hexdigest()
            self._above.pop()
        return self._found[key]

    def _parts(self, value: Any) -> Any:
        for kind, parts in self._kinds:
            if isinstance(value, kind):
                return parts(value)
        try:
            return _object(value)
        except Exception:  # raised by the class's code
            return [type(value)]


def _function(function: Any) -> Any:
    if is_installed(function.__code__.co_filename):
        return name_of(function)
    cells = [_content(cell) for cell in function.__closure__ or ()]
    defaults = [function.__defaults__, function.__kwdefaults__]
    return [_without_docstring(function), *defaults, *cells, _globals_of(function)]


def _code(code: types.CodeType) -> list[Any]:
    shape = (code.co_argcount, code.co_kwonlyargcount, code.co_flags)
    return [code.co_code, shape, code.co_names, code.co_consts]


def _class(cls: type) -> Any:
    if is_installed(cls):
        return name_of(cls)
    members = {k: v for k, v in vars(cls).items() if k not in _NO_MEMBERS}
    return [cls.__name__, cls.__bases__, members]


def _object(value: Any) -> Any:
    array = _array_in(value)
    if array is not None and array.dtype.hasobject:
        return [array.shape, array.tolist()]
    if array is not None:
        return digest_of_array(array)
    inner = getattr(value, "python_function", getattr(value, "__wrapped__", None))
    if inner is not None:  # tf.function, functools.cache
        return [inner]
    if hasattr(value, "get_config"):
        weights = value.get_weights() if hasattr(value, "get_weights") else []
        return [type(value), _without_names(value.get_config()), weights]
    if root_of(type(value)) in _CLOSED:
        return [type(value), getattr(value, "__name__", None)]
    reduce = copyreg.dispatch_table.get(type(value))
    reduced = reduce(value) if reduce else value.__reduce_ex__(2)
    if isinstance(reduced, str):
        return reduced
    parts: tuple[Any, ...] = (*reduced, None, None, None)
    _, arguments, state, items, pairs = parts[:5]
    return [type(value), arguments, state, list(items or ()), list(pairs or ())]


def _without_docstring(function: Any) -> types.CodeType:
    code, text = function.__code__, function.__doc__
    if text is None or code.co_consts[:1] != (text,):
        return code
    return code.replace(co_consts=(None, *code.co_consts[1:]))


def _globals_of(function: Any) -> dict[str, Any]:
    """The globals that a function uses; for the user's modules, only the parts used."""
    codes = [*codes_of(function)]
    attributes = {name for code in codes for name in code.co_names}
    steps = (step for code in codes for step in dis.get_instructions(code))
    names = {str(step.argval) for step in steps if step.opname in _LOADS}
    found = {}
    for name in names & function.__globals__.keys():
        value = function.__globals__[name]
        if not isinstance(value, types.ModuleType):
            found[name] = value
        elif not is_installed(value):
            found[name] = {k: v for k, v in vars(value).items() if k in attributes}
    return found


def _content(cell: Any) -> Any:
    try:
        return cell.cell_contents
    except ValueError:  # nothing has been put into it yet
        return None


def _array_in(value: Any) -> np.ndarray | None:
    """The values of an array or tensor; None for variables, which change."""
    if isinstance(value, np.ndarray):
        return value
    if not hasattr(value, "numpy") or hasattr(value, "assign"):
        return None
    return np.asarray(value.numpy())


def _without_names(config: Any) -> Any:
    """A configuration without names that Keras numbers and seeds that it draws."""
    if isinstance(config, dict):
        dropped = ("name", "seed")
        return {k: _without_names(v) for k, v in config.items() if k not in dropped}
    if isinstance(config, (list, tuple)):
        return [_without_names(part) for part in config]
    return config
