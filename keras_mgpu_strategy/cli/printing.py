"""What `mgpu` prints, on streams that may be missing, full or gone.

A message that its stream does not accept is lost; the run and its exit code are not
affected. An error is one line, in the terms of the command line.
"""

import contextlib
import os
import re
import sys
import warnings
from collections.abc import Callable, Iterator
from typing import Any

SELF_EXPLANATORY = (ValueError, TypeError, OSError, RuntimeError, ImportError)
"""Errors whose message says all there is."""

_Patterns = tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...]


def _as_json(found: re.Match[str]) -> str:
    """A Python argument, for a shell."""
    text = found[1].replace("'", '"').replace("None", "null").replace("False", "false")
    return f"--read_options='{text}'"


_OF_PYTHON: _Patterns = (
    (r"\b(pad=)?mgpu\.Pad\((\.\.\., )?(truncate|unmasked)=True\)", r"--\3"),
    (r"\bpad=mgpu\.Pad\([^()]*\)", "--pad_value=0"),
    (r"\b(resume|overwrite|missing_as_nan|truncate|unmasked)=True\b", r"--\1"),
    (r"^max_tokens=(\d+)", r"--max_tokens=\1"),
    (r"^lengths=", "--pad_lengths="),
    # Dicts exist only in Python.
    (r" Pass a dict such as \{'x': x, [^{}]*\}\.", ""),
    (r"\bcolumns=\[\.\.\.\](, or a dict of columns by input)?", "--columns=A,B"),
    (r"\bcustom_objects=\{[^{}]*\}", "--custom_objects=MODULE"),
    (r"`custom_objects`", "--custom_objects=MODULE"),
    (r"\bsafe_mode=False\b", "--nosafe_mode"),
    (r"\bread_options=(\{[^{}]*\})", _as_json),
    (
        r"\b(on_nonfinite|on_bad_file|preprocess|precision|output_dtype|engine|method|"
        r"combine|stop_on)=([\"'])([\w:.]+)\2",
        r"--\1=\3",
    ),
    (r"\bk=(\d+) is more than\b", r"--k=\1 is more than"),
    (r"\bviews has\b", "--views has"),
    (r"\bviews=\[\] names\b", "--views= names"),
    (
        r"^(\w+) is not defined for (.*)\. Call ",
        r"--method=\1 is not defined for \2. Use --method=",
    ),
    (r"pass (--combine=\w+) to load or Predictor", r"\1"),
    (r"Pass `outputs=` to choose\b", "With mgpu predict, --outputs chooses"),
    (r"make a Predictor of each\b", "run each model on its own"),
    (r"a list of names \(([\w, ]+)\) or mgpu\.View\(\.\.\.\)", r"names among \1"),
    (r"\bimage_size=\(height, width\)", "--image_size=HxW"),
    (r"\bimage_size=\((\d+), (\d+)\)", r"--image_size=\1x\2"),
)
_OF_TENSORFLOW: _Patterns = (
    (r"Graph execution error:\s*", ""),
    (r"Detected at node .*? defined at \(most recent call last\):\s*", ""),
    (r"Stack trace for op definition:\s*", ""),
    (r'^\s*File ".*", line \d+, in .*\n', ""),
    (r"\[Op:\w+\]", ""),
    (r"\[\[\{\{node (.+?)\}\}\]\]", r"(node \1)"),
)
_OF_ABSL: _Patterns = (
    (
        r"flag (.*): value should be one of <(.*)>",
        lambda found: f"{found[1]}. Expected one of {found[2].replace('|', ', ')}.",
    ),
    (
        r"flag (.*): .* is not a positive integer",
        r"\1. Expected an integer of 1 or more.",
    ),
    (r"flag (.*): invalid literal for int.*", r"\1. Expected an integer."),
    (r"flag (.*): could not convert string to float.*", r"\1. Expected a number."),
    (r"flag (.*): \('Non-boolean argument.*", r"\1. Expected true or false."),
    (r"Unknown command line flag '(.*?)'(\.?)", r"There is no flag --\1."),
    (
        r" Did you mean: (.*) \?",
        lambda found: f" Did you mean --{found[1].replace(', ', ', --')}?",
    ),
    (r"Missing value for flag (.*)", r"\1 needs a value: \1=VALUE."),
)


def say(line: str) -> None:
    """Prints a line about a run whose results are in files."""
    _print(sys.stdout, line)


def complain(text: str) -> None:
    """Prints errors, warnings or notes, in the command line's terms."""
    for line in text.splitlines():
        _print(sys.stderr, f"mgpu: {_replaced(line, _OF_PYTHON)}")


def one_line(error: BaseException) -> str:
    """An error's message, with its type if the message does not say it."""
    text = str(error)
    if is_of_tensorflow(error):
        text = _replaced(text, _OF_TENSORFLOW)
    text = " ".join(text.split())
    name = type(error).__name__
    if isinstance(error, SELF_EXPLANATORY):
        return text or name
    return f"{name}: {text}" if text else name


def is_of_tensorflow(error: BaseException) -> bool:
    """Whether it is one of `tf.errors`, without loading TensorFlow to find out."""
    return type(error).__module__.startswith("tensorflow.")


def of_flags(error: Exception) -> str:
    """The message of an absl error as value, expectation and remedy."""
    return _replaced(str(error), _OF_ABSL)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints warnings for users as lines like those of errors."""

    def show(message: Any, category: Any, *rest: Any) -> None:
        if not issubclass(category, UserWarning):
            return before(message, category, *rest)
        complain(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.showwarning = show
        yield


def open_streams() -> None:
    """Opens missing standard streams: the next files would get their numbers."""
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


def _replaced(text: str, patterns: _Patterns) -> str:
    for pattern, words in patterns:
        text = re.sub(pattern, words, text, flags=re.M)
    return text
