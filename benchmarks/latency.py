"""The time of one small call: Keras, a Predictor, and `mgpu.predict_proba`.

    python benchmarks/latency.py [--output=FILE.md]

Dense models, 20 features -> 16 units -> ... -> 1, on one CPU device. All ways are
called in turn, so that a busy machine slows them all down.
"""

import argparse
import pathlib
import time
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import result_tables

import keras_mgpu_strategy as mgpu

LAYERS = (3, 50)
ROWS = (1, 32)
HEADER = ("layers", "rows", "call", "p50 ms", "p95 ms")


def make_model(num_layers: int) -> Any:
    """A model with this many dense layers."""
    hidden = [keras.layers.Dense(16, "relu") for _ in range(num_layers - 1)]
    last = keras.layers.Dense(1, "sigmoid")
    return keras.Sequential([keras.Input((20,)), *hidden, last])


def ways(model: Any, x: np.ndarray) -> dict[str, Callable[[], Any]]:
    """What is measured, by name."""
    predictor = mgpu.Predictor(model)
    return {
        "model.predict": lambda: model.predict(x, verbose=0),
        "model(x)": lambda: np.asarray(model(x)),
        "model.predict_on_batch": lambda: model.predict_on_batch(x),
        "Predictor.predict": lambda: predictor.predict(x, verbose=0),
        "mgpu.predict_proba": lambda: mgpu.predict_proba(model, x, verbose=0),
    }


def measure(calls: dict[str, Callable[[], Any]], count: int) -> dict[str, list[float]]:
    """Milliseconds of each call, after three calls to compile."""
    spent: dict[str, list[float]] = {name: [] for name in calls}
    for number in range(count + 3):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            if number >= 3:
                spent[name].append(1e3 * (time.perf_counter() - began))
    return spent


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--calls", type=int, default=300)
    parser.add_argument("--output", type=pathlib.Path)
    arguments = parser.parse_args()
    lines = []
    for num_layers in LAYERS:
        model = make_model(num_layers)
        for num_rows in ROWS:
            x = np.random.default_rng(0).random((num_rows, 20), np.float32)
            for name, spent in measure(ways(model, x), arguments.calls).items():
                p50, p95 = np.percentile(spent, [50, 95])
                shown = (f"{num_layers}", f"{num_rows}", name, f"{p50:.2f}")
                lines.append([*shown, f"{p95:.2f}"])
    result_tables.save(arguments.output, result_tables.table(HEADER, lines))


if __name__ == "__main__":
    main()
