"""`predict_to` from beginning to end: every file holds what `predict` returns."""

import json

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.target import record_of
from tests import file_runs
from tests.file_runs import BATCH
from tests.resuming import NUM_ROWS, X, write

METHODS = ("predict", "predict_proba", "predict_classes")


def test_files_hold_what_methods_return(pair, path):
    for method in METHODS:
        report = write(pair, path, X, method=method, overwrite=True)
        expected = getattr(pair, method)(X, BATCH, verbose=0)
        file_runs.assert_holds(path, expected)
        file_runs.assert_nothing_beside(path)
        assert (report.rows, report.num_replicas) == (NUM_ROWS, 2)


def test_inputs_by_name(strategies, out):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_armed())
    x = {"a": X[:, :1], "b": X[:, 1:]}
    write(predictor, out, x)
    file_runs.assert_holds(out, predictor.predict(x, BATCH, verbose=0))


def test_a_journal_describes_the_input_as_it_came(pair, out):
    signature = tf.TensorSpec((None, None))
    x = tf.data.Dataset.from_generator(
        lambda: file_runs.generator(X), output_signature=signature
    )
    write(pair, out, x)
    about = journals.read(record_of(out)).about["run"]
    assert about["input"] == ["float32 [None, None]"]


def test_from_logits(pair, out):
    assert write(pair, out, X, from_logits=True) == pair.report
    expected = pair.predict_proba(X, BATCH, verbose=0, from_logits=True)
    file_runs.assert_holds(out, expected)


@pytest.mark.parametrize("batch_size", [BATCH, np.int64(BATCH)])
def test_steps(pair, out, batch_size):
    write(pair, out, X, steps=3, batch_size=batch_size)
    file_runs.assert_holds(out, pair.predict(X[: 3 * BATCH], BATCH, verbose=0))


def assert_is_indexed(path):
    if path.suffix == ".npy":
        index = json.loads((path / "index.json").read_text())
        assert index["structure"] == {"chance": "chance", "scores": "scores"}


def test_several_outputs(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_headed())
    for rows in (X, X[:0]):
        write(predictor, path, file_runs.generator(rows), overwrite=True)
        file_runs.assert_holds(path, predictor.predict(rows, BATCH, verbose=0))
        assert_is_indexed(path)
