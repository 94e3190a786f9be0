"""Messages of the Python API and of absl, in the command line's terms."""

import re
from collections.abc import Callable


def _as_json(found: re.Match[str]) -> str:
    """A Python argument, for a shell."""
    text = found[1].replace("'", '"').replace("None", "null").replace("False", "false")
    return f"--read_options='{text}'"


_WORDS: tuple[tuple[str, str | Callable[[re.Match[str]], str]], ...] = (
    (r"\b(resume|overwrite|missing_as_nan)=True\b", r"--\1"),
    # Dicts exist only in Python.
    (r"\bcolumns=\[\.\.\.\](, or a dict of columns by input)?", "--columns=A,B"),
    (r"\bcustom_objects=\{[^{}]*\}", "--custom_objects=MODULE"),
    (r"`custom_objects`", "--custom_objects=MODULE"),
    (r"\bsafe_mode=False\b", "--nosafe_mode"),
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


_FLAG = r"flag (--\w+=.*): "
_OF_ABSL: tuple[tuple[str, str], ...] = (
    (rf"{_FLAG}value should be one of <(.*)>", r"\1. Expected one of \2."),
    (
        rf"{_FLAG}.* is not a positive integer",
        r"\1. Expected an integer of 1 or more.",
    ),
    (rf"{_FLAG}invalid literal for int.*", r"\1. Expected an integer."),
    (rf"{_FLAG}could not convert string to float.*", r"\1. Expected a number."),
    (rf"{_FLAG}\('Non-boolean argument.*", r"\1. Expected true or false."),
    (
        r"Unknown command line flag '(.*?)'\. Did you mean: (.*) \?",
        r"There is no flag --\1. Did you mean --\2?",
    ),
    (r"Unknown command line flag '(.*?)'", r"There is no flag --\1."),
    (r"Missing value for flag (.*)", r"\1 needs a value: \1=VALUE."),
)


def of_flags(message: str) -> str:
    """Returns an absl message as value and expectation; others unchanged."""
    for pattern, words in _OF_ABSL:
        if found := re.fullmatch(pattern, message):
            return found.expand(words).replace("|", ", ")
    return message
