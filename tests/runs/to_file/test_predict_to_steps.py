"""Runs into files that choose their step: killed at any moment, and resumed."""

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines import choosing
from keras_mgpu_strategy.engines.trials import Trials
from keras_mgpu_strategy.outputs import journal as journals
from tests import file_runs
from tests.runs.to_file.test_predict_to_killed import snapshots

X = file_runs.rows(2000)
SIZE = 16
SECONDS = {"plain": 1e-3, "frozen": 0.9e-3, "xla": 0.5e-3}


@pytest.fixture
def searches(monkeypatch):
    """Makes runs of a few rows search, and find that XLA is the fastest."""
    timed = Trials.timed

    def as_if(self, kind, chunk):
        return timed(self, kind, chunk)[0], SECONDS[kind]

    monkeypatch.setattr(Trials, "timed", as_if)
    monkeypatch.setattr(choosing, "_SECONDS_BEFORE", -1.0)
    monkeypatch.setattr(choosing, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(choosing, "_MOST_SHARE_OF_RUN", 1e6)


@pytest.fixture(scope="module")
def model(strategies):
    with strategies[2].scope():
        return file_runs.classifier()


def bits(model, compile):
    """The results of a step for each row."""
    predictor = mgpu.Predictor(model, compile=compile)
    return predictor.predict_proba(X, SIZE, verbose=0)


def write(model, path, x=X, **more):
    """A run of a Predictor that remembers nothing."""
    return mgpu.Predictor(model).predict_to(path, x, SIZE, verbose=0, **more)


@pytest.mark.usefixtures("searches")
def test_a_run_is_killed_before_within_and_after_the_search(
    model, out, monkeypatch, tmp_path
):
    plain, xla = bits(model, "plain"), bits(model, "xla")
    assert (plain != xla).any(axis=1).mean() > 0.1

    def run():
        report = write(model, out)
        assert (report.step, {*report.tried_steps}) == (
            "xla",
            {"plain", "frozen", "xla"},
        )

    taken = snapshots(run, out.parent, tmp_path / "snapshots", monkeypatch)
    whole, seen = np.load(out), set()
    for folder in taken[:: max(len(taken) // 16, 1)]:
        found = folder / out.name
        if not file_runs.journal_of(found).exists():
            continue
        progress = journals.read(file_runs.journal_of(found)).progress
        known = progress and progress.step
        report = write(model, found, resume=True)
        file_runs.assert_nothing_beside(found)
        result = np.load(found)
        np.testing.assert_allclose(result, plain, atol=1e-6)
        seen.add(known)
        if known:  # the bits of a run that was not killed
            assert report.tried_steps == {}
            np.testing.assert_array_equal(result, whole)
            np.testing.assert_array_equal(result[progress.rows :], xla[progress.rows :])
    assert seen == {None, "xla"}


def test_a_run_is_resumed_only_by_its_own_step(model, out):
    def batches(fails):
        yield X[:1000]
        if fails:
            raise ConnectionError
        yield X[1000:]

    frozen = mgpu.Predictor(model, compile="frozen")
    with pytest.raises(ConnectionError):
        frozen.predict_to(out, batches(True), SIZE, verbose=0)
    before = file_runs.journal_of(out).read_bytes()
    message = (
        "cannot be resumed: its rows were computed with compile='frozen', and those "
        "to come would be with compile='xla', which rounds differently. Nothing was "
        "touched. Pass compile='frozen', or overwrite=True to begin again."
    )
    other = mgpu.Predictor(model, jit_compile=True)
    with pytest.raises(ValueError, match=message):
        other.predict_to(out, batches(False), SIZE, verbose=0, resume=True)
    assert file_runs.journal_of(out).read_bytes() == before
    assert write(model, out, resume=True, x=batches(False)).step == "frozen"
    np.testing.assert_array_equal(np.load(out), bits(model, "frozen"))
