"""What `mgpu` prints, on streams that may be missing, full or gone.

Guarantees:

* What is said of a run, and of its errors, is lost where nobody takes it; the run and
  its exit code stay as they are.
* An error is one line: what it says, without TensorFlow's account of how a graph was
  traced.
"""

import contextlib
import os
import re
import sys
from typing import Any

from keras_mgpu_strategy.cli.text import as_flags

TOLD_WELL = (ValueError, TypeError, OSError, RuntimeError, ImportError)
"""Errors whose text says all there is."""

_OF_TRACES = (
    r"Graph execution error:\s*",
    r"Detected at node .*? defined at \(most recent call last\):\s*",
    r"Stack trace for op definition:\s*",
    r'^\s*File ".*", line \d+, in .*\n',
    r"\[Op:\w+\]",
)


def say(line: str) -> None:
    """Prints a line about a run whose results are in files."""
    _print(sys.stdout, line)


def complain(line: str) -> None:
    """Prints an error, a warning or a note, in the words of the command line."""
    _print(sys.stderr, f"mgpu: {as_flags(line)}")


def one_line(error: BaseException) -> str:
    """What an error says; its kind as well, where that is not said."""
    text = str(error)
    if is_of_tensorflow(error):
        for pattern in _OF_TRACES:
            text = re.sub(pattern, "", text, flags=re.M)
        text = re.sub(r"\[\[\{\{node (.+?)\}\}\]\]", r"(node \1)", text)
    text = " ".join(text.split())
    return text if isinstance(error, TOLD_WELL) else f"{type(error).__name__}: {text}"


def is_of_tensorflow(error: BaseException) -> bool:
    """Whether it is one of `tf.errors`, without loading TensorFlow to know."""
    return type(error).__module__.startswith("tensorflow.")


def open_streams() -> None:
    """Gives the process the standard streams that it was started without.

    The next files to be opened would have their numbers, and take what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def discard(stream: Any) -> None:
    """Sends nowhere what a stream still holds and all that is to come."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _print(stream: Any, line: str) -> None:
    if stream is None:  # which would be the standard output, for `print`
        return
    try:
        print(line, file=stream, flush=True)
    except (OSError, ValueError):
        discard(stream)
