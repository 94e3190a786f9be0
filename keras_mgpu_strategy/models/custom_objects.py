"""Finds the user's classes and functions in a model, which need not be registered."""

import sys
import types
from collections.abc import Callable, Iterable
from typing import Any

from keras_mgpu_strategy.digests.packages import root_of
from keras_mgpu_strategy.models.libraries import LIBRARIES, layers_of

_NOT_CUSTOM = sys.stdlib_module_names - {"__main__"} | {
    *LIBRARIES,
    "numpy",
    "tensorflow",
}


def collect(roots: Iterable[Any]) -> dict[str, Any]:
    """Returns name -> class or function for all custom parts of layers, metrics etc."""
    found: dict[str, Any] = {}
    for root in roots:
        _add(root, found)
        for leaf in leaves(vars(root) if hasattr(root, "__dict__") else ()):
            _add(leaf, found)
    return found


def custom_objects_of(model: Any) -> dict[str, Any]:
    """Returns name -> class or function for all custom parts of a Keras model."""
    return collect(layers_of(model))


def refer_to_lambdas(layer: Any, config: dict[str, Any]) -> None:
    """Replaces bytecode, which Keras cannot read back, by names from `collect`."""
    for key in config:
        value: Any = getattr(layer, key, None)
        if _is_lambda(value):
            config[key] = {
                "module": "builtins",
                "class_name": "function",
                "config": _lookup_name(value),
                "registered_name": "function",
            }


def functions_of(source: Any) -> dict[str, Callable[..., Any]]:
    """Returns the functions in an object's own attributes, by name."""
    return {
        name: value
        for name, value in vars(source).items()
        # Keras wraps methods such as `build`, bound to the object.
        if isinstance(value, types.FunctionType)
        and not isinstance(getattr(type(source), name, None), types.FunctionType)
    }


def give_functions(functions: dict[str, Callable[..., Any]], target: Any) -> None:
    """Gives a rebuilt object functions in place of those that it was made with."""
    for name, function in functions.items():
        if callable(vars(target).get(name)):
            setattr(target, name, function)


def leaves(value: Any) -> list[Any]:
    """Returns what plain dicts, lists and tuples hold, at any depth."""
    if isinstance(value, dict):
        return [leaf for item in value.values() for leaf in leaves(item)]
    if type(value) in (list, tuple):
        return [leaf for item in value for leaf in leaves(item)]
    return [value]


def _add(value: Any, found: dict[str, Any]) -> None:
    has_name = isinstance(value, types.FunctionType | type)
    custom: Any = value if has_name else type(value)
    if root_of(custom) not in _NOT_CUSTOM:
        found.setdefault(_lookup_name(custom), custom)


def _is_lambda(value: Any) -> bool:
    return isinstance(value, types.FunctionType) and value.__name__ == "<lambda>"


def _lookup_name(custom: Any) -> str:
    suffix = f"_{id(custom)}" if _is_lambda(custom) else ""
    return f"{custom.__name__}{suffix}"
