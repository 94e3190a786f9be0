"""Tables of the scripts in this folder, with where and how they were made."""

import pathlib
import shlex
import sys
from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.benchmark import provenance


def table(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A Markdown table."""
    rows = [header, ["---"] * len(header), *lines]
    return "".join(f"| {' | '.join(map(str, row))} |\n" for row in rows)


def save(path: pathlib.Path | None, text: str) -> None:
    """Prints text, and writes it below the command and the machine it comes from."""
    print(text, end="")
    if path is None:
        return
    made = provenance.describe()
    versions = ", ".join(f"{k} {v}" for k, v in made["versions"].items() if v)
    machine = f"{made['machine']['usable_cpus']} CPUs ({made['machine']['cpu']})"
    commit = (made["commit"] or "unknown")[:10]
    script = f"benchmarks/{pathlib.Path(sys.argv[0]).name}"
    options = [word for word in sys.argv[1:] if not word.startswith("--output")]
    command = shlex.join(["python", script, *options])
    head = (
        f"`{command}`\n\n{machine}, {versions}, commit {commit}, {made['date'][:10]}."
    )
    path.write_text(f"{head}\n\n{text}")
