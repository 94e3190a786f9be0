"""Prints how much results in low precision differ from those in float32.

    python benchmarks/precision_error.py

The trained digits model runs on its digits; the models of the benchmark's suite have
random weights, and random rows.
"""

import argparse
import pathlib
from typing import Any

import keras
import numpy as np
import tensorflow as tf
from suite import models

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark.rows import make_rows

EXAMPLES = pathlib.Path(__file__).parents[1] / "docs" / "examples"
MODELS = ("digits", "tiny", "mlp", "cnn", "lstm", "transformer", "resnet50")
PRECISIONS = ("bfloat16", "float16")
SEED = 0


def load(name: str, num_rows: int) -> tuple[Any, Any]:
    """A model and rows for it."""
    if name == "digits":
        images = np.load(EXAMPLES / "digits_images.npy")
        return keras.models.load_model(EXAMPLES / "digits.keras"), images
    model = models.build(name, SEED)
    return model, make_rows(model, name, num_rows, SEED)


def results(model: Any, x: Any, precision: str) -> np.ndarray:
    """Results for all rows."""
    predictor = mgpu.Predictor(model, precision=precision)
    return tf.nest.flatten(predictor.predict(x, 32, verbose=0))[0]


def compare(low: np.ndarray, exact: np.ndarray) -> str:
    """Largest and mean error relative to the largest result; rows of another class."""
    error, largest = np.abs(low - exact), np.abs(exact).max()
    if exact.shape[-1] == 1:
        changed = (low > 0.5) != (exact > 0.5)
    else:
        changed = low.argmax(axis=-1) != exact.argmax(axis=-1)
    shares = [error.max() / largest, error.mean() / largest]
    return " | ".join([*(f"{share:.1e}" for share in shares), f"{changed.mean():.1%}"])


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rows", type=int, default=256)
    parser.add_argument("--models", nargs="+", choices=MODELS, default=MODELS)
    arguments = parser.parse_args()
    print("| model | precision | largest error | mean error | other class |")
    print("| --- | --- | --- | --- | --- |")
    for name in arguments.models:
        model, x = load(name, arguments.rows)
        exact = results(model, x, "float32")
        for precision in PRECISIONS:
            line = compare(results(model, x, precision), exact)
            print(f"| {name} | {precision} | {line} |", flush=True)


if __name__ == "__main__":
    main()
