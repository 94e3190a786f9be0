"""`predict_to` from beginning to end: every file holds what `predict` returns."""

import json

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests import file_runs
from tests.file_runs import BATCH
from tests.resuming import NUM_ROWS, X, write

METHODS = ("predict", "predict_proba", "predict_classes")


@pytest.mark.parametrize("method", METHODS)
def test_files_hold_what_predict_returns(pair, path, method):
    expected = getattr(pair, method)(X, BATCH, verbose=0)
    for make in file_runs.INPUTS.values():
        write(pair, path, make(X), method=method, overwrite=True)
        file_runs.assert_holds(path, expected)


@pytest.mark.parametrize("kind", file_runs.INPUTS)
@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_any_number_of_replicas_writes_the_same(predictors, num_replicas, path, kind):
    predictor = predictors[num_replicas]
    expected = predictor.predict_proba(X, BATCH, verbose=0)
    report = write(predictor, path, file_runs.INPUTS[kind](X))
    file_runs.assert_holds(path, expected)
    file_runs.assert_nothing_beside(path)
    assert (report.rows, report.num_replicas) == (NUM_ROWS, predictor.num_replicas)
    assert report == predictor.report


def test_inputs_by_name(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_armed())
    x = {"a": X[:, :1], "b": X[:, 1:]}
    write(predictor, path, x)
    file_runs.assert_holds(path, predictor.predict(x, BATCH, verbose=0))


@pytest.mark.parametrize("kind", ["array", "generator"])
def test_without_a_batch_size_files_hold_the_same_results(pair, path, kind):
    write(pair, path, file_runs.INPUTS[kind](X), batch_size=None)
    (found,) = file_runs.results_in(path).values()
    np.testing.assert_allclose(found, pair.predict(X, verbose=0), rtol=1e-6)


def test_from_logits(pair, path):
    write(pair, path, X, from_logits=True)
    expected = pair.predict_proba(X, BATCH, verbose=0, from_logits=True)
    file_runs.assert_holds(path, expected)


@pytest.mark.parametrize("batch_size", [BATCH, np.int64(BATCH)])
def test_steps(pair, path, batch_size):
    write(pair, path, X, steps=3, batch_size=batch_size)
    file_runs.assert_holds(path, pair.predict(X[: 3 * BATCH], BATCH, verbose=0))


@pytest.mark.parametrize("kind", ["array", "generator", "dataset"])
def test_several_outputs(strategies, path, kind):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_headed())
    expected = predictor.predict(X, BATCH, verbose=0)
    write(predictor, path, file_runs.INPUTS[kind](X))
    file_runs.assert_holds(path, expected)
    if path.suffix == ".npy":
        index = json.loads((path / "index.json").read_text())
        assert index["structure"] == {"chance": "chance", "scores": "scores"}
        assert index["num_rows"] == NUM_ROWS


@pytest.mark.parametrize("kind", ["array", "generator"])
@pytest.mark.parametrize("make", [file_runs.classifier, file_runs.two_headed])
def test_no_rows(strategies, path, make, kind):
    with strategies[2].scope():
        predictor = mgpu.Predictor(make())
    expected = predictor.predict(X[:0], verbose=0)
    report = write(predictor, path, file_runs.INPUTS[kind](X[:0]))
    assert report.rows == 0
    file_runs.assert_holds(path, expected)
    file_runs.assert_nothing_beside(path)
    if path.is_dir() and path.suffix == ".npy":
        structure = json.loads((path / "index.json").read_text())["structure"]
        assert structure == {"chance": "chance", "scores": "scores"}
