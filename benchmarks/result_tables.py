"""Results of the scripts in this folder, as tables that say where they come from."""

import json
import multiprocessing
import pathlib
import shlex
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np
from suite import provenance

from keras_mgpu_strategy.benchmark import tables


def measured(measure: Callable[..., None], *arguments: Any) -> dict[str, Any]:
    """What `measure`, in a process of its own, leaves in a folder's `result.json`."""
    with tempfile.TemporaryDirectory(prefix="mgpu-") as name:
        folder = pathlib.Path(name)
        context = multiprocessing.get_context("spawn")
        process = context.Process(target=measure, args=(folder, *arguments))
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{arguments} failed")
        return json.loads((folder / "result.json").read_text())


def in_turns(
    contenders: Mapping[str, Callable[[], Any]], repetitions: int, within: float = 1e-6
) -> dict[str, np.ndarray]:
    """Seconds on the wall, and of all processors, of each repetition, by contender.

    A first run of each does not count. All results must be those of the first, within
    a ten thousandth and that much.
    """
    times: dict[str, list[np.ndarray]] = {name: [] for name in contenders}
    for _ in range(repetitions + 1):
        results = []
        for name, run in contenders.items():
            began = _clocks()
            results.append(run())
            times[name].append(_clocks() - began)
        for result in results[1:]:
            np.testing.assert_allclose(result, results[0], 1e-4, within)
    return {name: np.array(each[1:]) for name, each in times.items()}


def _clocks() -> np.ndarray:
    return np.array([time.perf_counter(), time.process_time()])


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
