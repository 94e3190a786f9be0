"""The line of the user's code that called the package, for warnings to point at.

`warnings.warn` finds it by a number of frames, which is right for only one path through
the package, or, from Python 3.12 onwards, by file names. Neither finds it from a thread
of ours or TensorFlow's that reads or runs rows.
"""

import contextlib
import dataclasses
import os
import sys
import warnings
from typing import Any

# The end of a `with` block closes generators that warn.
_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_NOT_THE_USERS = (_PACKAGE + os.sep, contextlib.__file__)


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the user's code, which another thread may warn about.

    Args:
        file: Its file, or the equivalent in a notebook.
        number: Its number there.
        module: Name of its module, by which warnings are filtered.
        registry: Warnings that module has had, since each is shown once per line.
    """

    file: str
    number: int
    module: str
    registry: dict[Any, Any] = dataclasses.field(repr=False, compare=False)

    def warn(self, message: str, category: type[Warning] = UserWarning) -> None:
        """Warns as if that line had done so."""
        place = (self.file, self.number, self.module, self.registry)
        warnings.warn_explicit(message, category, *place)


def calling_line() -> Line:
    """The line in this thread that called the package."""
    frame = sys._getframe(1)
    while frame.f_back and frame.f_code.co_filename.startswith(_NOT_THE_USERS):
        frame = frame.f_back
    names = frame.f_globals
    registry = names.setdefault("__warningregistry__", {})
    module = names.get("__name__") or "<unknown>"
    return Line(frame.f_code.co_filename, frame.f_lineno, module, registry)


def warn(message: str, category: type[Warning] = UserWarning) -> None:
    """Warns at the line in this thread that called the package."""
    calling_line().warn(message, category)
