"""Rows per second into memory and each file format, in the same process.

    python benchmarks/sink_throughput.py [--rows=40960] [--output=FILE.md]

The CNN of the suite (32x32x3 -> 10 columns), per-replica batch 512, two replicas on the
CPU. Contenders take turns, in another order each time; medians.
"""

import argparse
import pathlib
import random
import statistics
import tempfile
import time
from typing import Any

import result_tables
from suite import models

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import machine
from keras_mgpu_strategy.benchmark.rows import make_rows

MODEL, SEED, REPLICAS, BATCH = "cnn", 0, 2, 512
SINKS = (".npy", ".parquet", ".zarr", ".csv")
MEMORY = "memory"
HEADER = ("sink", "rows/s", "share of memory's", "slowest", "fastest")


def seconds(
    predictor: mgpu.Predictor, x: Any, sink: str, folder: pathlib.Path
) -> float:
    """Seconds of one run; for a file, until it has its name."""
    began = time.perf_counter()
    if sink == MEMORY:
        predictor.predict_proba(x, BATCH * REPLICAS, verbose=0)
    else:
        path = folder / f"out{sink}"
        predictor.predict_to(path, x, BATCH * REPLICAS, verbose=0, overwrite=True)
    return time.perf_counter() - began


def measure(num_rows: int, repetitions: int) -> dict[str, list[float]]:
    """Sink -> seconds of each run except the first."""
    strategy = machine.make_strategy(machine.configure("cpu"), REPLICAS)
    with strategy.scope():
        model = models.build(MODEL, SEED)
        predictor = mgpu.Predictor(model)
    x = make_rows(model, MODEL, num_rows, SEED)
    sinks = [MEMORY, *SINKS]
    found: dict[str, list[float]] = {sink: [] for sink in sinks}
    order = random.Random(SEED)
    with tempfile.TemporaryDirectory() as folder:
        for repetition in range(repetitions + 1):
            order.shuffle(sinks)
            for sink in sinks:
                spent = seconds(predictor, x, sink, pathlib.Path(folder))
                if repetition:
                    found[sink].append(spent)
    return found


def lines(found: dict[str, list[float]], num_rows: int) -> list[list[str]]:
    """The lines of the table."""
    memory = statistics.median(found[MEMORY])
    return [
        [
            sink,
            f"{num_rows / statistics.median(spent):,.0f}",
            f"{memory / statistics.median(spent):.2f}",
            f"{num_rows / max(spent):,.0f}",
            f"{num_rows / min(spent):,.0f}",
        ]
        for sink, spent in found.items()
    ]


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=40 * BATCH * REPLICAS)
    parser.add_argument("--repetitions", type=int, default=7)
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    arguments = parser.parse_args()
    found = measure(arguments.rows, arguments.repetitions)
    table = result_tables.table(HEADER, lines(found, arguments.rows))
    result_tables.save(arguments.output, table)


if __name__ == "__main__":
    main()
