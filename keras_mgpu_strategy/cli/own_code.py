"""Classes and functions from the user's modules, which models need."""

import importlib
import os
import sys
import types
from collections.abc import Iterable
from typing import Any

_LIBRARIES = frozenset({"builtins", "keras", "numpy", "tensorflow", "tf_keras"})


def find_here() -> None:
    """Lets modules in the working folder be imported.

    `mgpu`, unlike `python -m`, does not look for them there.
    """
    if os.getcwd() not in sys.path:
        sys.path.insert(0, os.getcwd())


def objects_of(modules: Iterable[str]) -> dict[str, Any]:
    """Imports modules, which also registers with Keras what they register.

    Returns:
        Name -> class or function, for all public names in the modules, except those of
        Keras, TensorFlow and NumPy.

    Raises:
        ValueError: There is no such module.
    """
    find_here()
    found: dict[str, Any] = {}
    for name in modules:
        found |= _public(_imported(name))
    return found


def _imported(name: str) -> types.ModuleType:
    try:
        return importlib.import_module(name)
    except ModuleNotFoundError as error:
        if error.name is None or not f"{name}.".startswith(f"{error.name}."):
            raise  # a module that it imports itself
        raise ValueError(
            f"--custom_objects={name}: there is no such module. Expected the name of "
            f"one, without .py, on PYTHONPATH or in the folder {os.getcwd()!r}."
        ) from error


def _public(module: types.ModuleType) -> dict[str, Any]:
    names = getattr(module, "__all__", [n for n in vars(module) if n[0] != "_"])
    values = {name: getattr(module, name) for name in names}
    return {name: value for name, value in values.items() if _is_own(value)}


def _is_own(value: Any) -> bool:
    is_code = isinstance(value, type | types.FunctionType)
    return is_code and value.__module__.partition(".")[0] not in _LIBRARIES
