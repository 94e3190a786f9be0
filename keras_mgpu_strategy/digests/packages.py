"""Which code belongs to Python and installed packages, and which to the user."""

import functools
import importlib.metadata
import os
import sys
import sysconfig
import types
from typing import Any

_OWN_FOLDER = os.path.join(os.path.dirname(os.path.dirname(__file__)), "")
_PATHS = ("stdlib", "platstdlib", "purelib", "platlib")
_PLACES = (_OWN_FOLDER, *map(sysconfig.get_path, _PATHS))
_INSTALLED = ("site-packages", "dist-packages", "<frozen ")
_OURS = __name__.partition(".")[0]
_ALIKE = frozenset({"keras", "numpy", "tensorflow", "tf_keras", _OURS})
"""Packages whose versions are taken to compute the same."""


def is_installed(what: str | type | types.ModuleType) -> bool:
    """Whether a class, a module or a function's file is Python's or a package's."""
    if isinstance(what, str):
        is_named = any(name in what for name in _INSTALLED)
        return is_named or what.startswith(_PLACES) or _is_in_target(what)
    name = what.__name__ if isinstance(what, types.ModuleType) else str(what.__module__)
    return _is_root_installed(name.partition(".")[0])


def _is_in_target(file: str) -> bool:
    """Whether pip has installed a file into a folder of the path (`--target`)."""
    folders = (os.path.join(each, "") for each in sys.path if each)
    return any(
        file[len(each) :].partition(os.sep)[0] in _installed_into(each)
        for each in folders
        if file.startswith(each)
    )


@functools.cache
def _installed_into(folder: str) -> frozenset[str]:
    """Names of what pip has installed into a folder; not of projects in development."""
    found = importlib.metadata.distributions(path=[folder])
    listed = (each for each in found if each.read_text("RECORD") is not None)
    return frozenset(file.parts[0] for each in listed for file in each.files or ())


def root_of(cls: type) -> str:
    """The top-level package or module of a class."""
    return str(cls.__module__).partition(".")[0]


def name_of(value: Any) -> str:
    """The name of a function or class of a package, with the package's version."""
    while hasattr(value, "__wrapped__"):
        value = value.__wrapped__
    module = str(getattr(value, "__module__", None))
    root = module.partition(".")[0]
    known = None if root in _ALIKE else sys.modules.get(root)
    return f"{module}.{value.__qualname__} {getattr(known, '__version__', None)}"


def _is_root_installed(root: str) -> bool:
    if root == "__main__":
        return False
    module = sys.modules.get(root)
    folders = [*getattr(module, "__path__", ())]
    file = getattr(module, "__file__", None) or (folders[0] if folders else None)
    return root in sys.builtin_module_names if file is None else is_installed(file)
