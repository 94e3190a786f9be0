"""Exceptions on their way from a process to the one that called it.

Guarantee: an exception arrives as itself or, if it cannot be pickled, as one with the
same text, with its notes and the traceback that it had there.
"""

import dataclasses
import functools
import traceback
from collections.abc import Callable
from typing import Any

from keras_mgpu_strategy.engines.ray.pickling import pickles


@dataclasses.dataclass(frozen=True)
class Failed:
    """An exception in a process.

    Args:
        error: As it was raised.
        notes: Its notes, which not every exception class pickles.
        trace: Its traceback, as text.
    """

    error: Exception
    notes: tuple[str, ...]
    trace: str

    @classmethod
    def by(cls, error: Exception) -> "Failed":
        """What is sent of an exception that was raised here."""
        trace = "".join(traceback.format_exception(error))
        return cls(_picklable(error), tuple(getattr(error, "__notes__", [])), trace)

    def error_from(self, where: str) -> Exception:
        """The exception, with a note on where it was raised.

        Args:
            where: The process, for messages.
        """
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


def _picklable(error: Exception) -> Exception:
    """The error itself, or one with the same text if it cannot be pickled."""
    try:
        pickles().loads(pickles().dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
