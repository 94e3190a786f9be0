"""Results of the scripts in this folder, as tables that say where they come from."""

import json
import multiprocessing
import pathlib
import shlex
import sys
from collections.abc import Callable, Sequence
from typing import Any

from suite import provenance

from keras_mgpu_strategy.benchmark import tables


def measured(
    measure: Callable[..., None], folder: pathlib.Path, *arguments: Any
) -> dict[str, Any]:
    """What a process of its own leaves in the folder's `result.json`."""
    context = multiprocessing.get_context("spawn")
    process = context.Process(target=measure, args=(folder, *arguments))
    process.start()
    process.join()
    if process.exitcode != 0:
        raise RuntimeError(f"{arguments} failed")
    return json.loads((folder / "result.json").read_text())


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
