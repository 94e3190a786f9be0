"""What a run does to simulated GPUs and to the rest of the program."""

import gc
import pathlib
import tempfile
import weakref

import keras
import numpy as np
import rig
import tensorflow as tf
from common import ENGINES, chain, dense, on_cpu, on_gpus, rows_of

import keras_mgpu_strategy as mgpu

_NUM_COLUMNS = 256


def all_of_them(num_gpus):
    """The results of all functions below, by name and engine."""
    outcome = {"without_xla": without_xla(), "rows": _many(num_gpus).nbytes}
    outcome["drop_in"] = drop_in(num_gpus)
    for engine in ENGINES:
        outcome[engine] = {
            "copied": copied(engine, num_gpus),
            "freed": freed(engine),
            "grown": growth(engine, 200),
            "frozen": frozen(engine, num_gpus),
            "read back": read_back(engine, num_gpus),
            "metrics": metrics(engine, num_gpus),
        }
    return outcome


def _many(num_gpus):
    return rows_of(64 * 40 * num_gpus, _NUM_COLUMNS)


def copied(engine, num_gpus):
    """Bytes that a warm run copied to and from each GPU.

    The fewest of several runs: one that finds no free buffer sends a new one.
    """
    model = chain(_NUM_COLUMNS, keras.layers.Dense(_NUM_COLUMNS))
    predictor, runs = on_gpus(model, engine=engine), []
    for _ in range(6):
        rig.reset(num_gpus)
        predictor.predict(_many(num_gpus), 64 * num_gpus, verbose=0)
        counts = [rig.counts(gpu) for gpu in range(num_gpus)]
        runs.append([[count["bytes_in"], count["bytes_out"]] for count in counts])
    return min(runs, key=lambda run: sum(map(sum, run)))


def _distance(y_true, y_pred):
    return (keras.ops.cast(y_true, y_pred.dtype)[:, None] - y_pred) ** 2


def metrics(engine, num_gpus):
    """Values and expected ones of a run into a file; bytes copied and of results."""
    model = chain(64, keras.layers.Dense(10, "softmax"))
    predictor, rows = on_gpus(model, engine=engine), rows_of(6400, 64)
    labels = np.arange(len(rows)) % 10
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder) / "out.npy"
        for options in ({}, {"labels": labels, "metrics": ["accuracy", _distance]}):
            rig.reset(num_gpus)
            how = {"overwrite": True, "verbose": 0, **options}
            report = predictor.predict_to(path, rows, 64 * num_gpus, **how)
            copied = sum(rig.counts(gpu)["bytes_out"] for gpu in range(num_gpus))
        found = np.load(path)
    expected = [
        np.mean(found.argmax(1) == labels),
        np.mean((found - labels[:, None]) ** 2),
    ]
    values = [*report.metrics.values()]
    return values, [*map(float, expected)], copied, found.nbytes


def read_back(engine, num_gpus):
    """Bytes per row copied from all GPUs, and in the report, by method and dtype."""
    model, rows, found = chain(64, keras.layers.Dense(1000)), rows_of(6400, 64), {}
    for dtype in (None, "float16"):
        predictor = on_gpus(model, engine=engine, output_dtype=dtype)
        for method in ("predict", "predict_top_k"):
            for _ in range(2):  # the first run measures how fast copies are
                rig.reset(num_gpus)
                getattr(predictor, method)(rows, batch_size=64 * num_gpus, verbose=0)
            total = sum(rig.counts(gpu)["bytes_out"] for gpu in range(num_gpus))
            reported = predictor.report.bytes_out
            found[f"{method} {dtype}"] = total / len(rows), reported / len(rows)
    return found


def drop_in(num_gpus):
    """Bytes that a small call of `predict_proba` copied from all GPUs, and of weights.

    Then the largest error of results after the model's weights have changed.
    """
    model, rows = chain(64, keras.layers.Dense(4096)), rows_of(8, 64)
    for _ in range(3):
        rig.reset(num_gpus)
        mgpu.predict_proba(model, rows, from_logits=True, verbose=0)
    copied = sum(rig.counts(gpu)["bytes_out"] for gpu in range(num_gpus))
    model.layers[-1].kernel.assign_add(np.eye(64, 4096))
    found = mgpu.predict_proba(model, rows, from_logits=True, verbose=0)
    expected = tf.nn.softmax(model(rows)).numpy()
    weights = sum(weight.nbytes for weight in model.get_weights())
    return copied, found.nbytes, weights, float(np.abs(found - expected).max())


def growth(engine, num_calls):
    """How many more bytes a GPU holds after many calls than after a few."""
    predictor, held = on_gpus(dense(), engine=engine), []
    for call in range(num_calls):
        predictor.predict(rows_of(50 + call % 7), 32, verbose=0)
        held.append(tf.config.experimental.get_memory_info("GPU:0")["current"])
    return max(held[-10:]) - max(held[:10])


def frozen(engine, num_gpus):
    """Bytes of weights, and bytes held for constants on each GPU as weights change.

    Then the largest error of results.
    """
    layers = keras.layers
    model = chain(512, layers.Dense(2048, "relu"), layers.Dense(512))
    predictor = on_gpus(model, engine=engine, compile="frozen")
    kernel, rows, held = predictor.model.layers[1].kernel, rows_of(64, 512), []
    for _ in range(6):
        found = predictor.predict(rows, 16 * num_gpus, verbose=0)
        held.append([_held(gpu) for gpu in range(num_gpus)])
        kernel.assign_add(np.full(kernel.shape, 1e-3))
    kernel.assign_add(np.full(kernel.shape, -1e-3))
    model.set_weights(predictor.model.get_weights())
    error = np.abs(found - on_cpu(model, rows)).max() / np.abs(found).max()
    del predictor, kernel
    gc.collect()
    without = [_held(gpu) for gpu in range(num_gpus)]
    weights = sum(weight.nbytes for weight in model.get_weights())
    return weights, (np.array(held) - without).tolist(), float(error)


def _held(gpu):
    return tf.config.experimental.get_memory_info(f"GPU:{gpu}")["current"]


def freed(engine):
    """Whether the rows of a run are gone after it, without the garbage collector."""
    predictor = on_gpus(dense(), engine=engine)

    class Rows(np.ndarray):
        """Supports weak references."""

    predictor.predict(rows_of(100), 8, verbose=0)
    gc.collect()
    gc.disable()
    rows = rows_of(100).view(Rows)
    last = weakref.ref(rows)
    predictor.predict(rows, 8, verbose=0)
    del rows
    is_gone = last() is None
    gc.enable()
    return is_gone


def without_xla():
    """Checks that "auto" runs without XLA; returns the error that True raises."""
    rows = rows_of(40)
    model = dense()
    on_gpus(model).predict(rows, 8, verbose=0)
    mgpu.predict_proba(model, rows, 8, verbose=0)
    try:
        on_gpus(model, jit_compile=True).predict(rows, 8, verbose=0)
    except ValueError as error:
        return str(error)
    return ""
