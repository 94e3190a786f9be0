"""Rows of unequal length: padded to a few lengths, to the longest, and by Keras.

    python benchmarks/padding.py [--rows 2000] [--models lstm transformer]

Lengths are 1 to 512 tokens: by Zipf's law (a length is as frequent as its inverse),
uniform, or one for all rows. `longest` is the same package on rows that were padded to
the longest before the clock starts. Keras `predict` gets these rows too, in its own
batches of 32 and in those of `longest`; `by batch` is Keras on a data set that pads
each batch of 32 to its longest row. All take turns in one process for each line, after
a first run of each that is not counted. Numbers are medians of rows per second, and
ratios of these medians. Results are compared, too.
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

LONGEST = 512
VOCABULARY = 2_000
CONTENDERS = ("pad", "longest", "keras 32", "keras same batch", "keras by batch")
HEADER = (
    *("model", "lengths", "rows", "padding", *(f"{c}, rows/s" for c in CONTENDERS)),
    *(f"pad / {contender}" for contender in CONTENDERS[1:]),
)


def zipf(num_rows: int, random: np.random.Generator) -> np.ndarray:
    """Short rows are frequent, as in texts."""
    sizes = np.arange(1, LONGEST + 1)
    return random.choice(sizes, num_rows, p=1 / sizes / np.sum(1 / sizes))


def uniform(num_rows: int, random: np.random.Generator) -> np.ndarray:
    """All lengths are as frequent."""
    return random.integers(1, LONGEST + 1, num_rows)


def one(num_rows: int, random: np.random.Generator) -> np.ndarray:
    """Nothing has to be padded."""
    del random
    return np.full(num_rows, LONGEST // 4)


LENGTHS: dict[str, Callable[[int, np.random.Generator], np.ndarray]] = {
    "zipf": zipf,
    "uniform": uniform,
    "one": one,
}


def lstm(inputs: Any, embedded: Any) -> Any:
    """The output of an LSTM that skips padding."""
    from keras import layers

    del inputs
    return layers.LSTM(64)(embedded)


def transformer(inputs: Any, embedded: Any) -> Any:
    """The mean over tokens after two layers of attention, both without padding."""
    import keras
    from keras import layers

    is_token = inputs != 0
    x, mask = embedded, keras.ops.expand_dims(is_token, 1)
    for _ in range(2):
        attended = layers.MultiHeadAttention(4, 16)(x, x, attention_mask=mask)
        x = layers.LayerNormalization()(layers.Add()([x, attended]))
        wide = layers.Dense(128, "relu")(x)
        x = layers.LayerNormalization()(layers.Add()([x, layers.Dense(64)(wide)]))
    return layers.GlobalAveragePooling1D()(x, mask=is_token)


MODELS: dict[str, Callable[[Any, Any], Any]] = {
    "lstm": lstm,
    "transformer": transformer,
}


def classifier(name: str) -> Any:
    """A model of token ids, in which 0 is padding."""
    import keras
    from keras import layers

    keras.utils.set_random_seed(0)
    inputs = keras.Input((None,), dtype="int32")
    embedded = layers.Embedding(VOCABULARY, 64, mask_zero=True)(inputs)
    outputs = layers.Dense(4, activation="softmax")(MODELS[name](inputs, embedded))
    return keras.Model(inputs, outputs)


def measure(
    folder: pathlib.Path, name: str, lengths: str, num_rows: int, repetitions: int
) -> None:
    """Runs all contenders, and writes what it measured into the folder."""
    import tensorflow as tf

    import keras_mgpu_strategy as mgpu
    from keras_mgpu_strategy.benchmark import machine

    strategy = machine.make_strategy(machine.configure("cpu"), 1)
    random = np.random.default_rng(0)
    sizes = LENGTHS[lengths](num_rows, random)
    rows = [random.integers(1, VOCABULARY, size, np.int32) for size in sizes]
    longest = int(sizes.max())
    dense = np.zeros((num_rows, longest), np.int32)
    dense[np.arange(longest) < sizes[:, None]] = np.concatenate(rows)
    by_batch = tf.data.Dataset.from_tensor_slices(tf.ragged.stack(rows))
    by_batch = by_batch.ragged_batch(32).map(lambda batch: batch.to_tensor())
    model = classifier(name)
    with strategy.scope():
        padded, plain = mgpu.Predictor(model), mgpu.Predictor(model)
    padded.predict(rows, verbose=0, pad=mgpu.Pad())
    report: Any = padded.report
    same = report.batch_size  # of the longest rows
    keras_predict = functools.partial(model.predict, verbose=0)
    runs: tuple[Callable[[], Any], ...] = (
        lambda: padded.predict(rows, verbose=0, pad=mgpu.Pad()),
        lambda: plain.predict(dense, same, verbose=0),
        lambda: keras_predict(dense, batch_size=32),
        lambda: keras_predict(dense, batch_size=same),
        lambda: keras_predict(by_batch),
    )
    times = result_tables.in_turns(
        dict(zip(CONTENDERS, runs, strict=True)), repetitions, within=1e-5
    )
    rates = {name: num_rows / np.median(each[:, 0]) for name, each in times.items()}
    found = {"rates": rates, "padding": report.padding}
    (folder / "result.json").write_text(json.dumps(found))


def line(name: str, lengths: str, num_rows: int, repetitions: int) -> list[str]:
    """One line of the table."""
    found = result_tables.measured(measure, name, lengths, num_rows, repetitions)
    rates = found["rates"]
    cells = [name, lengths, f"{num_rows:,}", f"{found['padding']:.1%}"]
    cells += [f"{rates[contender]:,.0f}" for contender in CONTENDERS]
    cells += [f"{rates['pad'] / rates[other]:.2f}" for other in CONTENDERS[1:]]
    print(*cells, flush=True)
    return cells


def main() -> None:
    """Prints the table."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", choices=MODELS, default=list(MODELS))
    parser.add_argument("--lengths", nargs="+", choices=LENGTHS, default=list(LENGTHS))
    parser.add_argument("--rows", type=int, default=2_000)
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--output", type=pathlib.Path, help="a Markdown file")
    given = parser.parse_args()
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "2")
    lines = [
        line(name, lengths, given.rows, given.repetitions)
        for name in given.models
        for lengths in given.lengths
    ]
    result_tables.save(given.output, result_tables.table(HEADER, lines))


if __name__ == "__main__":
    main()
