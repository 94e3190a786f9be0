"""Peak memory of `predict_to` by input and output format, as rows grow.

    python benchmarks/file_memory.py [--rows 1000000 20000000] [--output=FILE.md]

Every line is a streaming source written to `.npy`, or a memory map written to a sink.
Every number comes from a new process with two replicas on the CPU. It is the peak of
anonymous memory (`RssAnon`) during the run, above what was in use before it, with the
model loaded. The rows are copies of one block of random rows, and results are compared
with those of the block.
"""

import argparse
import json
import multiprocessing
import os
import pathlib
import tempfile
import time
from collections.abc import Callable
from typing import Any

import numpy as np
import result_tables
from file_inputs import BATCH, BLOCK_ROWS, SOURCES, block, blocks

MODEL, SEED, REPLICAS = "tiny", 0, 2
ROWS = (1_000_000, 5_000_000, 20_000_000)
SINKS = (".npy", ".parquet", ".zarr", ".csv")


def measure(source: str, path: pathlib.Path, sink: str, num_rows: int) -> None:
    """Runs once, in a new process, and writes what it measured next to `path`."""
    from suite import models
    from suite.memory import PeakMemory

    import keras_mgpu_strategy as mgpu
    from keras_mgpu_strategy.benchmark import machine

    strategy = machine.make_strategy(machine.configure("cpu"), REPLICAS)
    with strategy.scope():
        model = models.build(MODEL, SEED)
        predictor = mgpu.Predictor(model)
    expected = np.asarray(model(block(), training=False))
    output = path.with_name(f"out{sink}")
    open_rows = SOURCES[source][1]
    x = blocks(num_rows) if open_rows is None else open_rows(path)
    memory = PeakMemory()
    memory.start()
    began = time.perf_counter()
    predictor.predict_to(output, x, BATCH * REPLICAS, verbose=0)
    seconds = time.perf_counter() - began
    memory.stop()
    check(output, expected, num_rows)
    found = {"megabytes": (memory.peak - memory.before) / 1e6, "seconds": seconds}
    path.with_name("result.json").write_text(json.dumps(found))


def check(output: pathlib.Path, expected: np.ndarray, num_rows: int) -> None:
    """Checks the first and last rows of an output, and their number."""
    last = (num_rows - 1) % BLOCK_ROWS + 1
    head, tail, count = ends_of(output, last)
    same = np.allclose(head, expected[: len(head)], 1e-3, 1e-5)
    if count != num_rows or not same or not np.allclose(tail, expected[:last], 1e-3):
        raise ValueError(f"{output} does not hold the results of {num_rows} rows")


def ends_of(output: pathlib.Path, last: int) -> tuple[Any, Any, int]:
    """The first rows of an output, its last rows, and their number."""
    if output.suffix == ".npy":
        rows = np.load(output, mmap_mode="r")
        return rows[:1000], rows[-last:], len(rows)
    if output.suffix == ".zarr":
        import zarr

        rows = zarr.open_group(output, mode="r")["output"]
        return rows[:1000], rows[rows.shape[0] - last :], rows.shape[0]
    if output.suffix == ".parquet":
        import pyarrow.dataset

        data = pyarrow.dataset.dataset(output)
        count = data.count_rows()
        ends = [
            np.stack(
                data.scanner(["output"], (field >= first) & (field < stop))
                .to_table()["output"]
                .to_numpy()
            )
            for field in [pyarrow.dataset.field("row")]
            for first, stop in ((0, 1000), (count - last, count))
        ]
        return *ends, count
    import pandas

    rows = pandas.read_csv(output).to_numpy()
    return rows[:1000, 1:], rows[-last:, 1:], len(rows)


class Bench:
    """Measures the numbers of the table.

    Args:
        folder: Where files are written, and removed again.
    """

    def __init__(self, folder: pathlib.Path):
        self._folder = folder
        self._context = multiprocessing.get_context("forkserver")
        self._context.set_forkserver_preload(["keras_mgpu_strategy.predictor"])

    def line(self, source: str, sink: str, rows: list[int]) -> list[str]:
        """One line: megabytes for each number of rows, and the largest difference."""
        results = [self._once(source, sink, count) for count in rows]
        found = [result["megabytes"] for result in results]
        rate = rows[-1] / results[-1]["seconds"]
        cells = [f"{value:.0f}" for value in (*found, max(found) - min(found))]
        print(source, sink, *cells, flush=True)
        return [source, sink, *cells, f"{rate:,.0f}"]

    def _once(self, source: str, sink: str, num_rows: int) -> dict[str, float]:
        with tempfile.TemporaryDirectory(dir=self._folder) as folder:
            suffix = source.partition(" ")[0]
            path = pathlib.Path(folder, f"in{suffix if suffix[0] == '.' else '.npy'}")
            self._run(SOURCES[source][0], path, num_rows)
            self._run(measure, source, path, sink, num_rows)
            return json.loads(path.with_name("result.json").read_text())

    def _run(self, function: Callable[..., None], *arguments: Any) -> None:
        process = self._context.Process(target=function, args=arguments)
        process.start()
        process.join()
        if process.exitcode != 0:
            raise RuntimeError(f"{function.__name__}{arguments} failed")


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", nargs="+", type=int, default=ROWS)
    parser.add_argument("--sources", nargs="+", choices=SOURCES, default=[*SOURCES])
    parser.add_argument("--sinks", nargs="+", choices=SINKS, default=SINKS)
    parser.add_argument("--folder", type=pathlib.Path, default=None)
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    arguments = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    bench = Bench(arguments.folder)
    pairs = [(source, ".npy") for source in arguments.sources]
    pairs += [(".npy memory map", sink) for sink in arguments.sinks if sink != ".npy"]
    lines = [bench.line(*pair, arguments.rows) for pair in pairs]
    counts = [f"MB at {count:,} rows" for count in arguments.rows]
    header = ["source", "sink", *counts, "largest difference", "rows/s at the most"]
    result_tables.save(arguments.output, result_tables.table(header, lines))


if __name__ == "__main__":
    main()
