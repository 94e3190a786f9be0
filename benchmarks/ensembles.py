"""Five models as one, next to five runs of one model each.

    python benchmarks/ensembles.py [--cases parquet images arrays]

`parquet` is a small model of a table, `images` one of PNG files, which take longer to
read than to predict; `arrays` is a large model of rows in memory. All take turns in one
process for each line, after a first run of each that is not counted. The numbers are
medians of seconds, and the median of each repetition's ratio; the last is the ratio of
CPU time, which a busy machine affects less. Results are also compared with NumPy's mean
of those of the single models.
"""

import argparse
import functools
import json
import os
import pathlib
from collections.abc import Callable
from typing import Any

import numpy as np
import result_tables

NUM_MODELS = 5
NUM_FEATURES = 20
COLUMNS = ("five runs, s", "five at once, s", "ratio", "ratio of CPU time")


def table(folder: pathlib.Path) -> tuple[Any, tuple[int, ...], list[int]]:
    """A Parquet file, the shape of its rows, and the layers of a model for it."""
    import pandas as pd

    path, random = folder / "rows.parquet", np.random.default_rng(0)
    rows = random.random((400_000, NUM_FEATURES), np.float32)
    pd.DataFrame(rows, columns=[f"c{i}" for i in range(NUM_FEATURES)]).to_parquet(path)
    return path, (NUM_FEATURES,), [32]


def images(folder: pathlib.Path) -> tuple[Any, tuple[int, ...], list[int]]:
    """A folder of PNG files, and the shape and layers for it."""
    from PIL import Image

    import keras_mgpu_strategy as mgpu

    random = np.random.default_rng(0)
    for index in range(4_000):
        pixels = random.integers(0, 255, (64, 64, 3), np.uint8)
        Image.fromarray(pixels).save(folder / f"{index:05}.png")
    return mgpu.files.Images(folder), (64, 64, 3), [4]


def arrays(folder: pathlib.Path) -> tuple[Any, tuple[int, ...], list[int]]:
    """Rows in memory, and layers that take most of the time."""
    del folder
    rows = np.random.default_rng(0).random((8_000, 784), np.float32)
    return rows, (784,), [2048, 2048]


CASES: dict[str, Callable[[pathlib.Path], tuple[Any, tuple[int, ...], list[int]]]] = {
    "parquet": table,
    "images": images,
    "arrays": arrays,
}


def classifier(shape: tuple[int, ...], units: list[int], seed: int) -> Any:
    """A classifier of ten classes."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(seed)
    seen = [layers.Flatten()] if len(shape) == 1 else []
    if not seen:
        seen = [layers.Conv2D(4, 3, 4), layers.GlobalAveragePooling2D()]
    seen += [layers.Dense(number, "relu") for number in units]
    return keras.Sequential(
        [keras.Input(shape), *seen, layers.Dense(10, activation="softmax")]
    )


def measure(
    folder: pathlib.Path, case: str, replicas: int, batch: int, repetitions: int
) -> None:
    """Runs both contenders, and writes what it measured into the folder."""
    import keras_mgpu_strategy as mgpu
    from keras_mgpu_strategy.benchmark import machine

    strategy = machine.make_strategy(machine.configure("cpu"), replicas)
    x, shape, units = CASES[case](folder)
    models = [classifier(shape, units, seed) for seed in range(NUM_MODELS)]
    with strategy.scope():
        together = mgpu.Predictor(models)
        alone = [mgpu.Predictor(model) for model in models]
    predict = functools.partial(_predict, x=x, batch=batch)
    contenders: dict[str, Callable[[], np.ndarray]] = {
        "five": lambda: np.mean(list(map(predict, alone)), 0),
        "one": lambda: predict(together),
    }
    times = result_tables.in_turns(contenders, repetitions)
    five, one = times["five"], times["one"]
    medians = [five[:, 0], one[:, 0], *(one / five).T]
    found = dict(zip(COLUMNS, map(np.median, medians), strict=True))
    (folder / "result.json").write_text(json.dumps(found))


def _predict(predictor: Any, x: Any, batch: int) -> np.ndarray:
    return predictor.predict(x, batch, verbose=0)


def line(case: str, replicas: int, batch: int, repetitions: int) -> list[str]:
    """One line of the table."""
    found = result_tables.measured(measure, case, replicas, batch, repetitions)
    cells = [case, str(replicas), f"{batch:,}"]
    cells += [f"{found[name]:.2f}" for name in COLUMNS]
    print(*cells, flush=True)
    return cells


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--cases", nargs="+", choices=CASES, default=list(CASES))
    parser.add_argument("--replicas", nargs="+", type=int, default=(1, 2))
    parser.add_argument("--batch", type=int, default=1024)
    parser.add_argument("--repetitions", type=int, default=5)
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    lines = [
        line(case, replicas, given.batch, given.repetitions)
        for case in given.cases
        for replicas in given.replicas
    ]
    header = ["rows", "replicas", "batch", *COLUMNS]
    result_tables.save(given.output, result_tables.table(header, lines))


if __name__ == "__main__":
    main()
