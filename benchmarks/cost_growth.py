"""What one more row, one more byte per row, one more replica or a larger model costs.

    python benchmarks/cost_growth.py [--output=FILE.md]

A dense model, features -> units -> 1, on virtual CPU devices of one thread each; one of
rows, features, units and replicas grows while the others stay fixed. The time of the
whole call is shown next to that of the compute stage alone; the rest is the host's.
"""

import argparse
import dataclasses
import pathlib
import statistics
import time

import keras
import numpy as np
import result_tables

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import machine

REPETITIONS = 5
BATCH = 1024
HEADER = ("rows", "features", "units", "replicas", "ms", "ns a row", "of it computing")


@dataclasses.dataclass(frozen=True)
class Case:
    """One call of `predict`.

    Args:
        rows: Rows of the input.
        features: float32 values per row.
        units: Width of the hidden layer.
        replicas: Copies of the model.
    """

    rows: int = 1_000_000
    features: int = 20
    units: int = 16
    replicas: int = 1


CASES = [
    *(Case(rows=rows) for rows in (1_000, 10_000, 100_000, 1_000_000, 10_000_000)),
    *(Case(rows=200_000, features=features) for features in (20, 200, 2_000)),
    *(Case(rows=200_000, units=units) for units in (16, 256, 4_096)),
    *(Case(rows=200_000, units=1_024, replicas=count) for count in (1, 2, 4, 8)),
]


def measure(case: Case) -> tuple[float, float]:
    """Median seconds of a call, and the share of the replicas' time spent computing."""
    with mgpu.scope([f"cpu:{index}" for index in range(case.replicas)]):
        layers = [keras.Input((case.features,)), keras.layers.Dense(case.units, "relu")]
        predictor = mgpu.Predictor(keras.Sequential([*layers, keras.layers.Dense(1)]))
    x = np.random.default_rng(0).random((case.rows, case.features), np.float32)
    spent, computing = [], []
    for repetition in range(REPETITIONS + 1):
        began = time.perf_counter()
        predictor.predict(x, BATCH * case.replicas, verbose=0)
        if repetition:
            spent.append(time.perf_counter() - began)
            assert predictor.report is not None
            computing.append(predictor.report.shares["compute"])
    return statistics.median(spent), statistics.median(computing)


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    machine.configure("cpu")
    machine.make_strategy("cpu", max(case.replicas for case in CASES))
    lines = []
    for case in CASES:
        seconds, share = measure(case)
        per_row = f"{1e9 * seconds / case.rows:,.0f}"
        sizes = [f"{value:,}" for value in dataclasses.astuple(case)]
        lines.append([*sizes, f"{1e3 * seconds:,.1f}", per_row, f"{share:.0%}"])
    result_tables.save(arguments.output, result_tables.table(HEADER, lines))


if __name__ == "__main__":
    main()
