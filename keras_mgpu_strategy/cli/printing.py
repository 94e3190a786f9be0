"""What `mgpu` prints, on streams that may be missing, full or gone.

Guarantees:

* Messages about a run and its errors are lost if their stream does not accept them; the
  run and its exit code are not affected.
* An error is one line: its message, without TensorFlow's trace of the graph.
"""

import contextlib
import os
import re
import sys
from typing import Any

from keras_mgpu_strategy.cli.text import as_flags

TOLD_WELL = (ValueError, TypeError, OSError, RuntimeError, ImportError)
"""Errors whose message says all there is."""

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
    """Prints an error, a warning or a note, in the command line's terms."""
    _print(sys.stderr, f"mgpu: {as_flags(line)}")


def one_line(error: BaseException) -> str:
    """An error's message, with its type if the message does not say it."""
    text = str(error)
    if is_of_tensorflow(error):
        for pattern in _OF_TRACES:
            text = re.sub(pattern, "", text, flags=re.M)
        text = re.sub(r"\[\[\{\{node (.+?)\}\}\]\]", r"(node \1)", text)
    text = " ".join(text.split())
    return text if isinstance(error, TOLD_WELL) else f"{type(error).__name__}: {text}"


def is_of_tensorflow(error: BaseException) -> bool:
    """Whether it is one of `tf.errors`, without loading TensorFlow to find out."""
    return type(error).__module__.startswith("tensorflow.")


def open_streams() -> None:
    """Opens the standard streams that the process was started without.

    Otherwise the next files opened would get their numbers, and what libraries print.
    """
    for number in range(3):
        try:
            os.fstat(number)
        except OSError:
            os.set_inheritable(os.open(os.devnull, os.O_RDWR), True)


def discard(stream: Any) -> None:
    """Discards what a stream still holds and everything written to it later."""
    with contextlib.suppress(AttributeError, OSError, ValueError):
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def _print(stream: Any, line: str) -> None:
    if stream is None:  # which `print` takes for standard output
        return
    try:
        print(line, file=stream, flush=True)
    except (OSError, ValueError):
        discard(stream)
