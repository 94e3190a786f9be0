"""Four views of each image in one run, next to four runs of Keras.

    python benchmarks/views.py [--replicas 1 2]

Both read the same folder of PNG files. Keras reads it once for each view, by
`image_dataset_from_directory` and a flip in the data set. They take turns in one
process for each line, after a first run of each that is not counted. Numbers are median
seconds; the last is the median of each repetition's ratio. Results are compared.
"""

import argparse
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import ensembles
import numpy as np
import result_tables

VIEWS = ("identity", "flip_left_right", "flip_up_down", "rot180")
FLIPPED: dict[str, tuple[int, ...]] = {
    "identity": (),
    "flip_left_right": (2,),
    "flip_up_down": (1,),
    "rot180": (1, 2),
}
SIZE = 64


def by_keras(model: Any, folder: pathlib.Path, batch: int) -> np.ndarray:
    """The mean of what Keras predicts on each view."""
    import keras
    import tensorflow as tf

    singles = []
    for view in VIEWS:
        axes = FLIPPED[view]
        rows = keras.utils.image_dataset_from_directory(
            folder,
            labels=None,
            image_size=(SIZE, SIZE),
            batch_size=batch,
            shuffle=False,
            verbose=False,
        )
        flipped = rows.map(lambda x, axes=axes: tf.reverse(x, axes))
        singles.append(model.predict(flipped.prefetch(tf.data.AUTOTUNE), verbose=0))
    return np.mean(singles, axis=0)


def measure(folder: pathlib.Path, replicas: int, batch: int, repetitions: int) -> None:
    """Runs both contenders, and writes what it measured into the folder."""
    import keras_mgpu_strategy as mgpu
    from keras_mgpu_strategy.benchmark import machine

    strategy = machine.make_strategy(machine.configure("cpu", replicas), replicas)
    rows, shape, units = ensembles.images(folder)
    model = ensembles.classifier(shape, units, 0)
    with strategy.scope():
        predictor = mgpu.Predictor(model, views=VIEWS)
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "keras": lambda: by_keras(model, folder, batch),
        "views": lambda: predictor.predict(rows, batch, verbose=0),
    }
    times = result_tables.in_turns(contenders, repetitions)
    seconds = {name: each[:, 0] for name, each in times.items()}
    found = {name: np.median(each) for name, each in seconds.items()}
    found["ratio"] = np.median(seconds["views"] / seconds["keras"])
    (folder / "result.json").write_text(json.dumps(found))


def line(replicas: int, batch: int, repetitions: int) -> list[str]:
    """One line of the table."""
    found = result_tables.measured(measure, replicas, batch, repetitions)
    cells = [str(replicas), f"{batch:,}"]
    cells += [f"{found[name]:.2f}" for name in ("keras", "views", "ratio")]
    print(*cells, flush=True)
    return cells


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--replicas", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    lines = [line(each, given.batch, given.repetitions) for each in given.replicas]
    header = ["replicas", "batch", "four runs of Keras, s", "four views, s", "ratio"]
    result_tables.save(given.output, result_tables.table(header, lines))


if __name__ == "__main__":
    main()
