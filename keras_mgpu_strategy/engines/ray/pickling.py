"""Values and exceptions on their way to another process and back.

An exception that cannot be pickled becomes one of the same text, notes and traceback.
"""

import dataclasses
import functools
import importlib
import os
import sys
import traceback
from collections.abc import Callable
from typing import Any

import numpy as np

from keras_mgpu_strategy.system import environment
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.system.tracebacks import shorten


@dataclasses.dataclass(frozen=True)
class Packed:
    """A value; the user's classes travel with their code, those of modules by name."""

    content: bytes
    folders: tuple[str, ...]  # where this process finds modules

    def unpack(self) -> Any:
        """Returns the value."""
        missing = (path for path in self.folders if path not in sys.path)
        sys.path.extend(filter(os.path.exists, missing))
        try:
            return _pickles().loads(self.content)
        except ImportError as error:
            note = (
                "The model needs this module in every process. Install it on every "
                "machine, or call ray.init(runtime_env={'working_dir': ...}) before."
            )
            error.add_note(note)
            raise


def pack(value: Any) -> Packed:
    """Packs a value, as this process sees it."""
    folders = tuple(os.path.abspath(path) for path in sys.path)
    return Packed(_pickles().dumps(value), folders)


def can_pickle(value: Any) -> bool:
    """Whether a value can be packed, and unpacked again."""
    if isinstance(value, np.ndarray) and value.dtype != object:
        return True
    try:
        _pickles().loads(_pickles().dumps(value))
    except Exception:  # noqa: BLE001 - code of the value's class runs here
        return False
    return True


@dataclasses.dataclass(frozen=True)
class Failed:
    """An exception of a process, and its notes, which not every class pickles."""

    error: Exception
    notes: tuple[str, ...]
    trace: str

    @classmethod
    def by(cls, error: Exception) -> "Failed":
        """What is sent of an exception that was raised here."""
        shorten(error)
        trace = "".join(traceback.format_exception(error))
        notes = tuple(getattr(error, "__notes__", []))
        if not can_pickle(error):
            error = RuntimeError(f"{type(error).__name__}: {error}")
        return cls(error, notes, trace)

    def error_from(self, where: str) -> Exception:
        """The exception, with a note on the process in which it was raised."""
        known = getattr(self.error, "__notes__", [])
        for note in (*self.notes, f"{where}:\n{self.trace}"):
            if note not in known:
                self.error.add_note(note)
        return self.error


def answering(method: Callable) -> Callable:
    """Makes a method return its exception: Ray would wrap one that is raised."""

    @functools.wraps(method)
    def answer(*args: Any) -> Any:
        try:
            return method(*args)
        except Exception as error:
            return Failed.by(error)

    return answer


def unwrapped(answer: Any, where: str) -> Any:
    """Returns the answer of a process, or raises its exception."""
    if isinstance(answer, Failed):
        raise answer.error_from(where)
    return answer


def _pickles() -> Any:
    """Ray's own pickling."""
    environment.prepare_ray()
    import_extra("ray", "ray", 'engine="ray"')
    return importlib.import_module("ray.cloudpickle")
