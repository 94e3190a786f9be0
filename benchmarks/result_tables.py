"""Tables of the scripts in this folder, with where and how they were made."""

import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from suite import provenance

from keras_mgpu_strategy.benchmark import tables


def table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    return f"{tables.table(header, [[*map(str, line)] for line in lines])}\n"


def save(path: pathlib.Path | None, text: str) -> None:
    """Prints text, and writes it below the command and the machine it comes from."""
    print(text, end="")
    if path is None:
        return
    script = f"benchmarks/{pathlib.Path(sys.argv[0]).name}"
    options = [word for word in sys.argv[1:] if not word.startswith("--output")]
    command = shlex.join(["python", script, *options])
    head = provenance.shown(provenance.describe(), command)
    path.write_text(f"{head}\n\n{text}")
