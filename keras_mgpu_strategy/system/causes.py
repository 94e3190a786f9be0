"""The innermost cause of an error of Keras or TensorFlow, in one line.

Both wrap errors of the user's code and of the parts of a model in pages of
configurations and calls.
"""

import re

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


def cause_of(error: BaseException) -> str:
    """Returns the class of an error and what is wrong at the root."""
    text = str(error)
    for pattern, shorter in _CUTS:
        text = re.sub(pattern, shorter, text, flags=re.DOTALL)
    line = " ".join(text.split())
    if len(line) > _MOST_CHARACTERS:
        line = f"{line[: _MOST_CHARACTERS - 3]}..."
    return f"{type(error).__name__}: {line}"
