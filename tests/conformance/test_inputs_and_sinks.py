"""Every kind of input x every way to take results x engines x row counts.

Each input meets each sink; strategies and row counts take turns, so that any two of the
four meet.
"""

import functools
import importlib.util
import itertools

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import inputs_zoo

BATCH = 8
ROW_COUNTS = (61, 0, 1, 9)
STRATEGIES = (("threads", 3), ("mirrored", 2), ("threads", 1))
MOST_ROWS = max(ROW_COUNTS)


def in_memory(predictor, x, path):
    return predictor.predict(x, BATCH, verbose=0)


def as_they_come(predictor, x, path):
    batches, stop = [], 0
    for batch in predictor.predict_iter(x, BATCH):
        assert isinstance(batch, mgpu.HostBatch) and batch.start == stop
        batches.append(np.array(batch.outputs))
        stop = batch.stop
    return np.concatenate(batches)


def in_file(predictor, x, path):
    report = predictor.predict_to(path, x, BATCH, 0, method="predict")
    # It needs the packages of all formats.
    found = importlib.import_module("tests.file_runs").results_in(path)["output"]
    assert len(found) == report.rows
    return found.astype(np.float32).reshape(report.rows, 3)


def in_npy(predictor, x, path):
    assert predictor.predict_to(path, x, BATCH, 0, method="predict").rows is not None
    return np.load(path)


SINKS = {
    "memory": in_memory,
    "iterator": as_they_come,
    ".npy": in_npy,
    ".parquet": in_file,
    ".csv": in_file,
    ".zarr": in_file,
}
HAS_FORMATS = all(map(importlib.util.find_spec, ("pandas", "pyarrow", "zarr")))


def turn(kind, sink):
    """The strategy and the number of rows of a kind of input and a sink."""
    place = [*inputs_zoo.INPUTS].index(kind) + [*SINKS].index(sink)
    return STRATEGIES[place % len(STRATEGIES)], ROW_COUNTS[place % len(ROW_COUNTS)]


@functools.cache
def model_of(shape):
    """A model of rows of a shape, with the same results for all."""
    inputs = tf.keras.Input(shape, name="x")
    # A flat one stays as it is, for sparse rows.
    flat = tf.keras.layers.Flatten()(inputs) if len(shape) > 1 else inputs
    model = tf.keras.Model(inputs, tf.keras.layers.Dense(3, "softmax")(flat))
    random = np.random.default_rng(3)
    model.set_weights([0.1 * random.random(w.shape) for w in model.get_weights()])
    return model


@functools.cache
def expected():
    x = inputs_zoo.rows(MOST_ROWS)
    return model_of((inputs_zoo.NUM_FEATURES,)).predict(x, MOST_ROWS, verbose=0)


@pytest.fixture(scope="module")
def predictor_of(strategies):
    @functools.cache
    def made(shape, engine, num_replicas):
        with strategies[num_replicas].scope():
            return mgpu.Predictor(model_of(shape), engine=engine)

    return made


def check(kind, predictor_of, parent):
    """Checks one kind of input into every sink, with files in a folder."""
    if kind in inputs_zoo.NEEDS:
        pytest.importorskip(inputs_zoo.NEEDS[kind])
    shape = (2, 2, 3) if kind == "images" else (inputs_zoo.NUM_FEATURES,)
    for sink in SINKS if HAS_FORMATS else ("memory", "iterator", ".npy"):
        strategy, num_rows = turn(kind, sink)
        if kind in inputs_zoo.NEVER_EMPTY:
            num_rows = num_rows or 2
        folder = parent / sink.lstrip(".")
        folder.mkdir()
        x = inputs_zoo.INPUTS[kind](inputs_zoo.rows(num_rows), folder)
        predictor = predictor_of(shape, *strategy)
        found = SINKS[sink](predictor, x, parent / f"out{sink}")
        message = f"{kind} into {sink} with {strategy}, {num_rows} rows"
        assert found.dtype == np.float32, message
        assert found.shape == (num_rows, 3), message
        reference = expected()[:num_rows]
        np.testing.assert_allclose(found, reference, 1e-5, 1e-6, err_msg=message)


@pytest.mark.parametrize("kind", inputs_zoo.INPUTS)
def test_rows_are_those_of_the_plain_model(kind, predictor_of, tmp_path):
    check(kind, predictor_of, tmp_path)


def test_any_two_of_the_four_meet():
    pairs = itertools.product(inputs_zoo.INPUTS, SINKS)
    cases = [(kind, sink, *turn(kind, sink)) for kind, sink in pairs]
    sides = (inputs_zoo.INPUTS, SINKS, STRATEGIES, ROW_COUNTS)
    for first, second in itertools.combinations(range(4), 2):
        met = {(case[first], case[second]) for case in cases}
        assert met == {*itertools.product(sides[first], sides[second])}
