"""Kills runs that write files at random moments, resumes them, compares bytes.

    python benchmarks/kill_and_resume.py [--kills=25] [--output=FILE.md]

For each file format and number of replicas, a run in its own process is ended by
SIGKILL, resumed in a new process, killed again, and so on until it completes. Then the
next output is begun, until there have been enough kills. Every output is compared with
that of an uninterrupted run. Outputs are written alternately from an array, whose
number of rows is known, and from a generator.

Processes are forked from one that has TensorFlow loaded but not started.
"""

import argparse
import concurrent.futures
import dataclasses
import multiprocessing
import pathlib
import random
import sys
import tempfile
import time
from typing import Any

import result_tables
from killed_run import Run, child

SUFFIXES = (".npy", ".parquet", ".zarr", ".csv")
REPLICAS = (1, 2)
AIMS = ("anywhere", "anywhere", "at the beginning", "at the end")
HEADER = ("sink", "replicas", "outputs", "kills", "resumes", "mismatches")
LOST = 255
"""Multiprocessing's exit code if two threads request the end at the same moment.

Such an end is not counted as a kill; a child that fails by itself exits with 1.
"""


@dataclasses.dataclass
class Counts:
    """What happened to the outputs of one file format."""

    outputs: int = 0
    kills: int = 0
    resumes: int = 0
    mismatches: int = 0


class Killer:
    """Kills the runs of one file format and number of replicas.

    Args:
        context: Starts processes.
        folder: Where files are written.
        suffix: The file format.
        replicas: Number of replicas.
        num_rows: Number of rows of each output.
        seed: Seed of the random moments.
    """

    def __init__(
        self,
        context: Any,
        folder: pathlib.Path,
        suffix: str,
        replicas: int,
        num_rows: int,
        seed: int,
    ):
        self._context, self._folder = context, folder
        self._suffix, self._replicas, self._num_rows = suffix, replicas, num_rows
        self._random = random.Random(f"{seed} {suffix} {replicas}")
        self._counts = Counts()

    def kill(self, num_kills: int) -> list[Any]:
        """Kills this many times, completes all outputs; returns a line of the table."""
        whole = self._run("whole", is_known=True)
        seconds = self._complete(whole)
        expected = content(whole.path)
        counts = self._counts
        while counts.kills < num_kills:
            run = self._run(f"{counts.outputs}", is_known=counts.outputs % 2 == 0)
            self._kill_until_complete(run, seconds, num_kills)
            counts.outputs += 1
            own = {run.path, run.path.with_name(f".{run.path.name}.finished")}
            beside = set(run.path.parent.iterdir()) - own
            counts.mismatches += bool(beside) or content(run.path) != expected
        return [self._suffix, self._replicas, *dataclasses.astuple(counts)]

    def _run(self, name: str, is_known: bool) -> Run:
        folder = self._folder / f"{self._suffix[1:]}-{self._replicas}-{name}"
        folder.mkdir()
        path = folder / f"out{self._suffix}"
        return Run(path, self._replicas, self._num_rows, is_known)

    def _kill_until_complete(self, run: Run, seconds: float, num_kills: int) -> None:
        counts = self._counts
        attempts = 0
        while not run.is_complete:
            counts.resumes += attempts > 0
            attempts += 1
            if counts.kills == num_kills:
                self._complete(run)
                return
            process = self._start(run)
            self._wait(process, run, seconds)
            process.kill()
            process.join()
            if process.exitcode not in (0, -9, LOST):
                raise RuntimeError(f"{run} ended with code {process.exitcode}")
            counts.kills += process.exitcode == -9

    def _start(self, run: Run) -> Any:
        begun = self._context.Event()
        process = self._context.Process(target=child, args=(run, begun))
        process.start()
        while not begun.wait(0.1) and process.is_alive():
            pass
        return process

    def _wait(self, process: Any, run: Run, seconds: float) -> None:
        """Waits until a random moment, or the end of the run."""
        aim = self._random.choice(AIMS)
        if aim == "at the end":
            while process.is_alive() and rows_in(run.journal) < 0.8 * run.num_rows:
                time.sleep(0.005)
            process.join(self._random.uniform(0, 0.3 * seconds))
        else:
            share = 0.15 if aim == "at the beginning" else 1.0
            process.join(self._random.uniform(0, share * seconds))

    def _complete(self, run: Run) -> float:
        process = self._start(run)
        began = time.monotonic()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{run} ended with code {process.exitcode}")
        return time.monotonic() - began


def rows_in(journal: pathlib.Path) -> int:
    """The number of rows in a journal; 0 if it is missing or incomplete."""
    from keras_mgpu_strategy.outputs import journal as journals

    try:
        progress = journals.read(journal).progress
    except (ValueError, OSError):
        return 0
    return progress.rows if progress else 0


def content(path: pathlib.Path) -> dict[str, bytes]:
    """The bytes of a file, or of every file in a folder."""
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return {
        file.relative_to(path).as_posix(): file.read_bytes()
        for file in files
        if file.is_file()
    }


def measure(arguments: argparse.Namespace) -> list[list[Any]]:
    """The lines of the table."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["keras_mgpu_strategy.predictor", "zarr", "pyarrow"])
    pairs = [(suffix, count) for suffix in arguments.sinks for count in REPLICAS]
    with tempfile.TemporaryDirectory() as folder:
        killers = [
            Killer(context, pathlib.Path(folder), *pair, arguments.rows, arguments.seed)
            for pair in pairs
        ]
        with concurrent.futures.ThreadPoolExecutor(arguments.jobs) as pool:
            lines = pool.map(lambda killer: killer.kill(arguments.kills), killers)
            return [show(line) for line in lines]


def show(line: list[Any]) -> list[Any]:
    """Reports progress."""
    print(*line, file=sys.stderr, flush=True)
    return line


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=25, help="for each line")
    parser.add_argument("--rows", type=int, default=8000, help="of each output")
    parser.add_argument("--sinks", nargs="+", choices=SUFFIXES, default=SUFFIXES)
    parser.add_argument("--jobs", type=int, default=1, help="lines at the same time")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    arguments = parser.parse_args()
    lines = measure(arguments)
    result_tables.save(arguments.output, result_tables.table(HEADER, lines))
    sys.exit(any(line[-1] for line in lines))


if __name__ == "__main__":
    main()
