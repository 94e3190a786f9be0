"""Warnings, errors and log records, as a user should see them."""

import contextlib
import dataclasses
import logging
import os
import re
import sys
import warnings
from collections.abc import Iterator
from typing import Any

# The end of a `with` block closes generators that warn.
_PACKAGE = os.path.dirname(os.path.dirname(__file__))
_NOT_THE_USERS = (_PACKAGE + os.sep, contextlib.__file__)

_MOST_CHARACTERS = 500
_CUTS = (
    # What Keras says about the objects around the faulty one.
    (r".*Exception encountered: ", ""),
    # Frames as AutoGraph lists them before the error itself.
    (r".*in user code:.*\n *File [^\n]*\n[^\n]*\n", ""),
    (r"\s*(Call a|A)rguments received by .*", ""),
    (r"\s*Full object config: .*", ""),
    (r"\x1b\[\d*m", ""),
    (r"^\s*\w+Error: ", ""),
    (r"Exception encountered when calling ([^\n]+)\.\n", r"\1: "),
)


@dataclasses.dataclass(frozen=True)
class Line:
    """A line of the user's code; `registry` has the warnings its module has had."""

    file: str
    number: int
    module: str
    registry: dict[Any, Any] = dataclasses.field(repr=False, compare=False)

    def warn(self, message: str, category: type[Warning] = UserWarning) -> None:
        """Warns as if that line had done so."""
        place = (self.file, self.number, self.module, self.registry)
        warnings.warn_explicit(message, category, *place)


def calling_line() -> Line:
    """The line of the user's code in this thread that called the package.

    `warnings.warn` counts frames, in the thread that warns, which may be ours.
    """
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


@contextlib.contextmanager
def explaining_interrupt(what: str) -> Iterator[None]:
    """Adds a note to a Ctrl-C that says what it ended."""
    try:
        yield
    except KeyboardInterrupt as interrupt:
        interrupt.add_note(what)
        raise


def cause_of(error: BaseException) -> str:
    """The class of an error of Keras or TensorFlow and, in a line, its inmost cause."""
    text = str(error)
    for pattern, shorter in _CUTS:
        text = re.sub(pattern, shorter, text, flags=re.DOTALL)
    line = " ".join(text.split())
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS - 3]}..."
    return f"{type(error).__name__}: {line}"


@contextlib.contextmanager
def without_records(logger: str, message: str) -> Iterator[None]:
    """Drops records of the logger of that name that contain the message."""

    def keeps(record: logging.LogRecord) -> bool:
        return message not in record.getMessage()

    target = logging.getLogger(logger)
    target.addFilter(keeps)
    try:
        yield
    finally:
        target.removeFilter(keeps)


def short(value: Any) -> str:
    """A value as an error shows it, cut if it is long."""
    text = repr(value)
    return text if len(text) <= 60 else f"{text[:40]}..."
