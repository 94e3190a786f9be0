"""Results of the scripts in this folder, as tables that say how they were made."""

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
    """What `measure`, run in a new process, writes into a folder's `result.json`."""
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
    """Wall and CPU seconds of each repetition, by contender.

    A first run of each is not counted. All results must agree with the first
    contender's to a relative 1e-4, plus `within`.
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
    """Prints text, and writes it to a file after the command and the machine."""
    print(text, end="")
    if path is None:
        return
    script = f"benchmarks/{pathlib.Path(sys.argv[0]).name}"
    options = [word for word in sys.argv[1:] if not word.startswith("--output")]
    command = shlex.join(["python", script, *options])
    head = provenance.shown(provenance.describe(), command)
    path.write_text(f"{head}\n\n{text}")
