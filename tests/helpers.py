"""Models, engines and checks that several tests share."""

import contextlib
import gc
import threading
import time

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import HostBatch

BATCH = 4
"""The per-replica batch in tests of engines."""


def numbered_rows(num_rows, num_columns=2):
    """Rows that hold their index: row i is i in every column."""
    column = np.arange(num_rows, dtype=np.float32)[:, np.newaxis]
    return np.repeat(column, num_columns, axis=1)


def numbered_batches(batch_rows, num_columns=2):
    """The same rows as consecutive batches, endlessly."""
    start = 0
    while True:
        rows = numbered_rows(batch_rows, num_columns) + np.float32(start)
        yield rows
        start += batch_rows


def in_batches(rows, sizes):
    """Cuts an array into batches of the given sizes."""
    return np.split(rows, np.cumsum(sizes)[:-1])


def doubling_model(*layers, num_columns=2):
    """2 x + 1, exact in float32 for row numbers; further layers in front."""
    inputs = keras.Input((num_columns,))
    outputs = inputs
    for layer in layers:
        outputs = layer(outputs)
    return keras.Model(inputs, keras.layers.Rescaling(2.0, 1.0)(outputs))


def dense_model(num_columns=2, num_outputs=3):
    """One layer with variables that are not 0."""
    model = keras.Sequential(
        [keras.Input((num_columns,)), keras.layers.Dense(num_outputs)]
    )
    random = np.random.default_rng(7)
    model.set_weights([random.random(w.shape) - 0.5 for w in model.get_weights()])
    return model


class OnlyBatches(keras.layers.Layer):
    """Refuses any number of rows other than the per-replica batch."""

    def call(self, inputs):
        tf.debugging.assert_equal(tf.shape(inputs)[0], BATCH)
        return tf.identity(inputs)


def host_batches(rows, sizes, start=0):
    """Consecutive `HostBatch`es of the given sizes, as yielded by an engine."""
    for part in in_batches(rows, sizes):
        yield HostBatch(start, part)
        start += len(part)


def joined(batches, start=0):
    """All rows, after checking that the batches follow each other."""
    batches = list(batches)
    for batch in batches:
        assert batch.start == start
        start = batch.stop
    nests = [batch.outputs for batch in batches]
    return tf.nest.map_structure(lambda *arrays: np.concatenate(arrays), *nests)


@contextlib.contextmanager
def no_thread_left():
    """Fails if a thread that was started inside does not end."""
    before = set(threading.enumerate())
    yield
    deadline = time.monotonic() + 30  # for a machine that is busy
    while (left := _new_threads(before)) and time.monotonic() < deadline:
        gc.collect()  # an exception can keep an iterator alive in a cycle
        time.sleep(0.01)
    assert not left, [thread.name for thread in left]


def _new_threads(before):
    # "Dummy" stands for a thread of TensorFlow's own pools that once ran Python.
    return [
        thread
        for thread in threading.enumerate()
        if thread not in before and not thread.name.startswith("Dummy")
    ]


def is_waiting(thread):
    """Whether a thread is still running after a moment."""
    thread.join(0.1)
    return thread.is_alive()


def ended(thread):
    """Whether a thread ends."""
    thread.join(30)
    return not thread.is_alive()


def top_k(scores, k):
    """NumPy's best classes of the last axis, and their scores; NaN is infinity."""
    wide = scores.astype(np.float64) if scores.dtype.kind in "fV" else scores
    ranked = np.where(np.isnan(wide), np.inf, wide) if wide.dtype.kind == "f" else wide
    order = np.argsort(-ranked.astype(np.float64), axis=-1, kind="stable")[..., :k]
    return order, np.take_along_axis(wide, order, axis=-1)
