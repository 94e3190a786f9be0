"""Predictions and metrics of the same rows: one pass here, two passes of Keras.

    python benchmarks/predict_and_evaluate.py [--replicas 1 2] [--batches 32 1024]

Keras' `predict` and `evaluate` run one after the other, on one device and under the
strategy. Here `evaluate`, and `predict_to` with metrics, run the model once. All take
turns in one process for each line, after a first run of each that is not counted. The
numbers are medians of seconds, and in brackets the share of the faster way of Keras.
Metrics are compared, too.
"""

import argparse
import json
import os
import pathlib
import statistics
import time
from typing import Any

import numpy as np
import result_tables

CASES = {"mlp": 120_000, "cnn": 12_000}
REPETITIONS = 3


def compiled(case: str) -> Any:
    """A classifier of ten classes."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    if case == "mlp":
        shape = (784,)
        inner = [layers.Dense(512, "relu"), layers.Dense(512, "relu")]
    else:
        shape = (32, 32, 3)
        inner = [layers.Conv2D(32, 3, activation="relu"), layers.MaxPooling2D()]
        inner += [layers.Conv2D(64, 3, activation="relu"), layers.Flatten()]
    layers_ = [keras.Input(shape), *inner, layers.Dense(10, "softmax")]
    model = keras.Sequential(layers_)
    model.compile(loss="sparse_categorical_crossentropy", metrics=["accuracy"])
    return model


def measure(
    folder: pathlib.Path, devices: str, case: str, replicas: int, batch: int
) -> None:
    """Runs all contenders, and writes what it measured into the folder."""
    import tensorflow as tf

    import keras_mgpu_strategy as mgpu
    from keras_mgpu_strategy.benchmark import machine

    # Otherwise GPUs would round to 10 bits, and some rows would get another class.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    strategy = machine.make_strategy(machine.configure(devices), replicas)
    model = compiled(case)
    with strategy.scope():
        predictor = mgpu.Predictor(model)
    random = np.random.default_rng(0)
    x = random.random((CASES[case], *model.input_shape[1:]), np.float32)
    y = random.integers(0, 10, CASES[case])
    output = folder / "out.npy"

    def keras_passes(theirs: Any) -> list[float]:
        theirs.predict(x, batch_size=batch, verbose=0)
        return theirs.evaluate(x, y, batch_size=batch, verbose=0)

    def to_file() -> list[float]:
        options: Any = {"labels": y, "metrics": ["accuracy"], "overwrite": True}
        report = predictor.predict_to(output, x, batch, 0, **options)
        return [np.nan, *report.metrics.values()]

    contenders = {
        "keras_one_device": lambda: keras_passes(model),
        "keras_strategy": lambda: keras_passes(predictor.model),
        "evaluate": lambda: predictor.evaluate(x, y, batch, 0),
        "predict_to": to_file,
    }
    seconds: dict[str, list[float]] = {name: [] for name in contenders}
    expected = None
    for repetition in range(REPETITIONS + 1):
        for name, run in contenders.items():
            began = time.perf_counter()
            results = run()
            if repetition:
                seconds[name].append(time.perf_counter() - began)
            expected = results if expected is None else expected
            known = ~np.isnan(results)
            np.testing.assert_allclose(
                np.asarray(results)[known], np.asarray(expected)[known], rtol=1e-5
            )
    medians = {name: statistics.median(each) for name, each in seconds.items()}
    (folder / "result.json").write_text(json.dumps(medians))


def line(devices: str, case: str, replicas: int, batch: int) -> list[str]:
    """One line of the table."""
    found = result_tables.measured(measure, devices, case, replicas, batch)
    best = min(found["keras_one_device"], found["keras_strategy"])
    cells = [case, str(replicas), f"{batch:,}"]
    cells += [f"{found[name]:.2f}" for name in ("keras_one_device", "keras_strategy")]
    for ours in ("evaluate", "predict_to"):
        cells.append(f"{found[ours]:.2f} ({found[ours] / best:.2f})")
    print(*cells, flush=True)
    return cells


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--devices", choices=("cpu", "gpu"), default="cpu")
    parser.add_argument("--replicas", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batches", nargs="+", type=int, default=(32, 1024))
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    lines = [
        line(given.devices, case, replicas, batch)
        for case in given.cases
        for replicas in given.replicas
        for batch in given.batches
    ]
    header = ["model", "replicas", "batch", "Keras, one device", "Keras, strategy"]
    header += ["`evaluate`", "`predict_to(metrics=)`"]
    result_tables.save(given.output, result_tables.table(header, lines))


if __name__ == "__main__":
    main()
