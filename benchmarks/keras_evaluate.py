"""Keras' own `evaluate` under a `MirroredStrategy`, compared with one device.

    python benchmarks/keras_evaluate.py [--library keras] [--devices 2 3]

Virtual CPU devices, batches of 36 rows, which is a multiple of both numbers of devices,
and up to 1,000 rows. A line of the table has what was compiled, and the largest
relative difference of any result over all numbers of rows. The last line is for one
row, and a model that has not been evaluated before.
"""

import argparse
import functools
import os
import pathlib
from typing import Any

import numpy as np
import result_tables

BATCH, ROWS, FIRST = 36, (72, 73, 77, 1000), (1,)
RANDOM = np.random.default_rng(0)
X = RANDOM.random((1000, 6), np.float32)
FLAGS = (X.sum(axis=1, keepdims=True) > 3).astype("float32")
CLASSES = RANDOM.integers(0, 3, 1000)
WEIGHTS = RANDOM.random(1000).astype("float32")


def largest(library: Any) -> Any:
    """A metric whose state is not a sum over rows."""
    import tensorflow as tf

    class Largest(library.metrics.Metric):
        def __init__(self) -> None:
            super().__init__(name="largest")
            self.most = self.add_weight(name="most", initializer="zeros")

        def update_state(self, y_true: Any, y_pred: Any, sample_weight: Any) -> None:
            del y_true, sample_weight
            most = tf.maximum(tf.convert_to_tensor(self.most), tf.reduce_max(y_pred))
            self.most.assign(most)

        def result(self) -> Any:
            return tf.convert_to_tensor(self.most) + 0.0

    return Largest()


def _one(library: Any, **inner: Any) -> Any:
    inputs = library.Input((6,))
    hidden = library.layers.Dense(8, "relu", **inner)(inputs)
    return library.Model(inputs, library.layers.Dense(1, "sigmoid")(hidden))


def _two(library: Any) -> Any:
    inputs = library.Input((6,))
    flag = library.layers.Dense(1, name="flag")(inputs)
    kind = library.layers.Dense(3, "softmax", name="kind")(inputs)
    return library.Model(inputs, {"flag": flag, "kind": kind})


def cases(library: Any) -> dict[str, tuple[Any, Any, dict[str, Any]]]:
    """How to make and compile each model, and its labels."""
    metrics: list[Any] = ["accuracy", "mae"]
    sums = ["AUC", "Precision", "RootMeanSquaredError"]
    metrics += [getattr(library.metrics, name)(name=name) for name in sums]
    mean_squares = library.losses.MeanSquaredError
    losses = {"flag": "mse", "kind": "sparse_categorical_crossentropy"}
    found: dict[str, Any] = {
        "means, and metrics whose state is a sum": ({}, {"metrics": metrics}),
        "weight regularizers": ({"kernel_regularizer": "l2"}, {}),
        "activity regularizers": ({"activity_regularizer": "l2"}, {}),
        "a metric whose state is no sum": ({}, {"metrics": [largest(library)]}),
        'a loss with reduction="sum"': ({}, {"loss": mean_squares(reduction="sum")}),
    }
    if library.__name__ == "keras":
        by_weight = mean_squares(reduction="mean_with_sample_weight")
        found['reduction="mean_with_sample_weight"'] = {}, {"loss": by_weight}
    made = {
        name: (functools.partial(_one, library, **inner), FLAGS, {"loss": "mse"} | how)
        for name, (inner, how) in found.items()
    }
    labels = {"flag": FLAGS, "kind": CLASSES}
    two = functools.partial(_two, library)
    made["the loss of each of two outputs"] = two, labels, {"loss": losses}
    return made


def results(library: Any, name: str, num_rows: int, strategy: Any) -> Any:
    """The results of one evaluation of a model that has not been used before."""
    library.utils.set_random_seed(1)
    with strategy.scope():
        make, labels, how = cases(library)[name]
        model = make()
        model.compile(**how)
    y, weights = labels, None
    if isinstance(labels, np.ndarray):
        y, weights = labels[:num_rows], WEIGHTS[:num_rows]
    else:
        y = {key: values[:num_rows] for key, values in labels.items()}
    options: Any = {"sample_weight": weights, "verbose": 0, "return_dict": True}
    return model.evaluate(X[:num_rows], y, BATCH, **options)


def difference(library: Any, name: str, rows: Any, strategies: list[Any]) -> str:
    """The largest relative difference from one device, or the error."""
    most, where = 0.0, ""
    for num_rows in rows:
        try:
            one, many = (results(library, name, num_rows, s) for s in strategies)
        except Exception as error:
            return f"{type(error).__name__} with {num_rows} rows"
        for key, value in one.items():
            found = abs(value - many[key]) / max(abs(value), 1e-12)
            if found > most:
                most, where = found, f" ({key}, {num_rows} rows)"
    return f"{most:.0e}{where}" if most > 1e-6 else "under 1e-6"


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--library", choices=("keras", "tf_keras"), default="keras")
    parser.add_argument("--devices", nargs="+", type=int, default=(2, 3))
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    import importlib

    import tensorflow as tf

    tf.config.set_logical_device_configuration(
        tf.config.list_physical_devices("CPU")[0],
        [tf.config.LogicalDeviceConfiguration()] * max(given.devices),
    )
    library = importlib.import_module(given.library)
    one = tf.distribute.get_strategy()
    lines = []
    named = [(name, name, ROWS) for name in cases(library)]
    named.append(("a first batch of fewer rows than devices", named[0][0], FIRST))
    for title, name, rows in named:
        cells = [title]
        for devices in given.devices:
            parts = [f"CPU:{index}" for index in range(devices)]
            pair = [one, tf.distribute.MirroredStrategy(parts)]
            cells.append(difference(library, name, rows, pair))
        print(*cells, sep=", ", flush=True)
        lines.append(cells)
    header = ["compiled", *(f"{n} devices" for n in given.devices)]
    text = f"{given.library} {library.__version__}\n\n"
    text += result_tables.table(header, lines)
    result_tables.save(given.output, text)


if __name__ == "__main__":
    main()
