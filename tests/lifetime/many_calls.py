"""Calls of many kinds and sizes in a new process, and what they leave behind."""

import contextlib
import gc
import itertools
import os
import threading
import warnings
from collections import Counter

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import helpers
from tests.lifetime import calling

NUM_ROWS = 300
# TensorFlow keeps 0.1 MiB for each tf.data pipeline that a strategy distributes.
MOST_BYTES = {"threads": 12 << 20, "mirrored": 30 << 20}
MOST_LATE = 12
WARM_UP = {"threads": 900, "mirrored": 60}


class CountsTraces(keras.layers.Layer):
    """Refuses negative rows."""

    traces = 0

    def call(self, inputs):
        CountsTraces.traces += 1
        tf.debugging.assert_non_negative(inputs)
        return tf.identity(inputs)


class Refused(Exception):
    pass


def refused_batches(rows):
    yield rows
    raise Refused


def in_memory(predictor, rows):
    calling.by_predict(predictor, rows)


def of_classes(predictor, rows):
    calling.by_classes(predictor, rows)


def of_probabilities(predictor, rows):
    probabilities = predictor.predict_proba(rows, verbose=0, from_logits=True)
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-5)


def as_they_come(predictor, rows):
    calling.by_iterator(predictor, rows)


def of_batches(predictor, rows):
    calling.by_batches(predictor, rows)


def left_behind(predictor, rows):
    for batch in predictor.predict_iter(rows, 16):
        calling.check(batch.outputs, rows[: batch.stop])
        break


def of_a_stream(predictor, rows):
    calling.by_stream(predictor, rows)


def of_wrong_rows(predictor, rows):
    with pytest.raises(ValueError, match="shape"):
        predictor.predict(rows[:, :2], verbose=0)


def of_a_failing_stream(predictor, rows):
    with pytest.raises(Refused):
        predictor.predict(refused_batches(rows), verbose=0)


def of_a_failing_model(predictor, rows):
    with pytest.raises(tf.errors.InvalidArgumentError):
        predictor.predict(-1 - rows, 16, verbose=0)


# Most calls are short ones in memory, as in a service.
KINDS = [
    *(in_memory, of_classes, of_probabilities, in_memory, as_they_come),
    *(in_memory, of_classes, of_probabilities, in_memory, of_batches),
    *(in_memory, of_classes, of_probabilities, of_wrong_rows, left_behind),
    *(in_memory, of_classes, of_probabilities, in_memory, of_a_stream),
    *(in_memory, of_classes, of_probabilities, in_memory, of_a_failing_stream),
    *(in_memory, of_classes, of_probabilities, in_memory, of_a_failing_model),
]


def sizes():
    """Numbers of rows in mixed order, never the same twice in succession."""
    return (1 + call * 7 % (NUM_ROWS - 1) for call in itertools.count())


def make_calls(predictor, num_calls):
    rows = calling.rows_of(0, NUM_ROWS, 4)
    for kind, num_rows in itertools.islice(
        zip(itertools.cycle(KINDS), sizes(), strict=False), num_calls
    ):
        kind(predictor, rows[:num_rows])


def counts():
    """What must be the same after many calls."""
    gc.collect()
    kinds = Counter(type(thing).__name__ for thing in gc.get_objects())
    return {
        "traces": CountsTraces.traces,
        "compiled functions": kinds["ConcreteFunction"],
        "threads": threading.active_count(),
        "files": calling.open_files(),
    }


def left_behind_by(engine, num_calls):
    """Runs the calls, after a first round that compiles everything."""
    with mgpu.scope(replicas_per_device=2):
        layers = (CountsTraces(),)
        predictor = mgpu.Predictor(
            helpers.doubling_model(*layers, num_columns=4), engine=engine
        )
    make_calls(predictor, WARM_UP[engine])
    before, memory = counts(), calling.resident_bytes()
    make_calls(predictor, num_calls)
    after, grown = counts(), calling.resident_bytes() - memory
    print(f"{engine}: {num_calls} calls, {grown / 2**20:.1f} MiB, {before} -> {after}")
    # A replica's step is compiled when that replica first gets such rows.
    for kind in ("traces", "compiled functions"):
        assert after.pop(kind) - before.pop(kind) <= MOST_LATE
    assert after == before
    assert grown < MOST_BYTES[engine]


@contextlib.contextmanager
def tensorflow_silent():
    """Hides its line for each error of the model."""
    shown = os.dup(2)
    with open(os.devnull, "w") as nowhere:
        os.dup2(nowhere.fileno(), 2)
    try:
        yield
    finally:
        os.dup2(shown, 2)
        os.close(shown)


def run(engine, num_calls):
    """As under pytest, a warning is an error."""
    warnings.simplefilter("error")
    with tensorflow_silent():
        left_behind_by(engine, num_calls)
