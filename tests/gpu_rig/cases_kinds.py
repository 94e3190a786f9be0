"""Strings, images and random numbers on simulated GPUs: failures by case."""

import tempfile

import keras
import numpy as np
import tensorflow as tf
from common import ENGINES, are_same, made_on_cpu, on_cpu, on_gpus, rows_of

import keras_mgpu_strategy as mgpu
from tests import views


def others(num_gpus):
    """All of them, with both engines."""
    return [
        f"{engine}: {label}"
        for case in (_texts, _ragged, _padded, _images, _views, _draws)
        for engine in ENGINES
        for label, found, expected in case(engine, num_gpus)
        if not are_same(found, expected)
    ]


def _lookup():
    """Takes words; gives numbers, and words again."""
    words = ["red", "green", "blue"]
    inputs = keras.Input((), dtype="string")
    numbers = keras.layers.StringLookup(vocabulary=words)(inputs)
    again = keras.layers.StringLookup(vocabulary=words, invert=True)(numbers)
    score = keras.layers.Dense(2)(keras.layers.Embedding(5, 3)(numbers))
    return keras.Model(inputs, {"score": score, "word": again})


def _texts(engine, num_gpus):
    words = (["red", "blue", "no such word", "green"] * 9)[:35]
    model = made_on_cpu(_lookup)
    found = on_gpus(model, engine=engine).predict(words, 4 * num_gpus, verbose=0)
    expected = on_cpu(model, tf.constant(words))
    found["word"] = found["word"].astype("S")
    expected["word"] = expected["word"].astype("S")
    yield "strings", found, expected


def _ragged(engine, num_gpus):
    """Rows of several lengths, whose results are ragged as well."""
    inputs = keras.Input((None, 2))
    model = made_on_cpu(lambda: keras.Model(inputs, keras.layers.Dense(3)(inputs)))
    parts = [np.full((4, length, 2), length, np.float32) for length in (4, 7, 2)]
    predictor = on_gpus(model, engine=engine)
    found = predictor.predict(iter(parts), 2 * num_gpus, verbose=0).to_list()
    expected = [row.tolist() for part in parts for row in on_cpu(model, part)]
    yield "lengths", len(found), len(expected)
    for mine, theirs in zip(found, expected, strict=True):
        yield "ragged", np.asarray(mine), np.asarray(theirs)


def _summing():
    """One result per token, and one per row, that are not changed by padding."""
    inputs = keras.Input((None, 2))
    seen = keras.layers.Dense(3)(keras.layers.Masking(-1.0)(inputs))
    return keras.Model(inputs, [seen, keras.layers.GlobalAveragePooling1D()(seen)])


def _padded(engine, num_gpus):
    """Rows of several lengths, sorted and padded."""
    model = made_on_cpu(_summing)
    rows = [rows_of(length, 2) for length in [3, 9, 1, 30, 5] * 9]
    pad = mgpu.Pad(-1.0, max_tokens=64, window=16)
    found = on_gpus(model, engine=engine).predict(rows, verbose=0, pad=pad)
    for row, *mine in zip(rows, *found, strict=True):
        expected = [result[0] for result in on_cpu(model, row[None])]
        yield "padded", [mine[0].numpy(), mine[1]], expected


def _of_pixels():
    inputs = keras.Input((8, 8, 3))
    hidden = keras.layers.Conv2D(4, 3, activation="relu")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    hidden = keras.layers.GlobalAveragePooling2D()(hidden)
    return keras.Model(inputs, keras.layers.Dense(2)(hidden))


def _images(engine, num_gpus):
    model = made_on_cpu(_of_pixels)
    pixels = np.random.default_rng(1).integers(0, 256, (21, 8, 8, 3), np.uint8)
    expected = on_cpu(model, pixels.astype(np.float32))
    predictor = on_gpus(model, engine=engine)
    yield "pixels", predictor.predict(pixels, 4 * num_gpus, verbose=0), expected
    with tempfile.TemporaryDirectory() as folder:
        for index, image in enumerate(pixels):
            encoded = tf.io.encode_png(image)
            tf.io.write_file(f"{folder}/{index:03}.png", encoded)
        yield "images", predictor.predict(folder, 4 * num_gpus, verbose=0), expected


def _mapping():
    inputs = keras.Input((8, 8, 3), dtype="uint8")
    scaled = keras.layers.Rescaling(1 / 255)(inputs)
    seen = keras.layers.Conv2D(2, 3, padding="same")(scaled)
    return keras.Model(inputs, [seen, keras.layers.GlobalMaxPooling2D()(seen)])


def _views(engine, num_gpus):
    """Images of bytes and their maps, turned on the devices."""
    model = made_on_cpu(_mapping)
    pixels = np.random.default_rng(1).integers(0, 256, (21, 8, 8, 3), np.uint8)
    for name, (forward, inverse) in views.TURNS.items():
        seen, best = on_cpu(model, forward(pixels))
        predictor = on_gpus(model, engine=engine, views=[name])
        found = predictor.predict(pixels, 4 * num_gpus, verbose=0)
        yield f"views by {name}", found, [inverse(seen), best]


class _Noise(keras.layers.Layer):
    """Adds noise, also in prediction."""

    def __init__(self):
        super().__init__()
        self.seed = keras.random.SeedGenerator(7)

    def call(self, inputs):
        return inputs + keras.random.normal(keras.ops.shape(inputs), seed=self.seed)


def _draws(engine, num_gpus):
    """The random numbers of a row do not depend on the batch that it is in."""
    inputs = keras.Input((8,))
    model = made_on_cpu(lambda: keras.Model(inputs, _Noise()(inputs)))
    rows = rows_of(40)
    predictor = on_gpus(model, engine=engine)
    noise = predictor.predict(rows, 4 * num_gpus, verbose=0) - rows
    yield "rows draw for themselves", len(np.unique(noise.round(5))) > 300, True
    other = predictor.predict(rows, 4 * num_gpus, verbose=0) - rows
    yield "runs draw anew", bool(np.abs(noise - other).max() > 0.1), True
