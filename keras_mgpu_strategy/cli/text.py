"""Messages of the Python API in the words of the command line."""

import re
from collections.abc import Callable


def _as_json(found: re.Match[str]) -> str:
    """An argument of Python, for a shell."""
    text = found[1].replace("'", '"').replace("None", "null").replace("False", "false")
    return f"--read_options='{text}'"


_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\b(resume|overwrite|missing_as_nan)=True\b", r"--\1"),
    # A dict is a way of Python alone.
    (r"\bcolumns=\[\.\.\.\](, or a dict of columns by input)?", "--columns=A,B"),
    (r"\bread_options=(\{[^{}]*\})", _as_json),
    (
        r"\b(on_nonfinite|on_bad_file|preprocess|precision|engine|method|stop_on)="
        r"([\"'])([\w:.]+)\2",
        r"--\1=\3",
    ),
    (r"\bimage_size=\(height, width\)", "--image_size=HxW"),
    (r"\bimage_size=\((\d+), (\d+)\)", r"--image_size=\1x\2"),
)


def as_flags(message: str) -> str:
    """Returns a message with `--resume` in place of `resume=True`, and so on."""
    for pattern, flag in _WORDS:
        message = re.sub(pattern, flag, message)
    return message
