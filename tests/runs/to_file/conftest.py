"""Predictors of one model, and outputs in small parts."""

import pytest

import keras_mgpu_strategy as mgpu
from tests import file_runs


@pytest.fixture(scope="session")
def predictors(strategies):
    """Number of replicas -> a Predictor, all of the same model."""
    found = {}
    for num_replicas in (1, 2, 3):
        with strategies[num_replicas].scope():
            found[num_replicas] = mgpu.Predictor(file_runs.classifier())
    return found


@pytest.fixture
def pair(predictors):
    return predictors[2]


@pytest.fixture
def out(tmp_path, monkeypatch):
    """An output in a folder of its own, flushed after every micro-batch."""
    file_runs.make_small(monkeypatch, flushes=True)
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs" / "out.npy"


@pytest.fixture(params=file_runs.SUFFIXES)
def path(request, out):
    """The same for every file format."""
    return out.with_suffix(request.param)
