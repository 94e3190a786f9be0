"""The search for a step over processes: one of them searches, all use its choice."""

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines import choosing
from keras_mgpu_strategy.engines.trials import Trials
from tests import file_runs

SIZE = 16


@pytest.fixture
def xla_is_fastest(monkeypatch):
    """Makes runs of a few rows search."""
    timed, seconds = Trials.timed, {"plain": 1e-3, "frozen": 0.9e-3, "xla": 0.5e-3}
    monkeypatch.setattr(
        Trials,
        "timed",
        lambda self, *chunk: (timed(self, *chunk)[0], seconds[chunk[0]]),
    )
    monkeypatch.setattr(choosing, "_SECONDS_BEFORE", -1.0)
    monkeypatch.setattr(choosing, "_LEAST_SECONDS", 0.0)
    monkeypatch.setattr(choosing, "_MOST_SHARE_OF_RUN", 1e6)
    monkeypatch.setattr(choosing, "_MOST_SECONDS_TO_COMPILE", 1e6)


@pytest.mark.usefixtures("xla_is_fastest")
def test_processes_use_the_step_that_one_of_them_found(tmp_path):
    model = file_runs.classifier()
    path = tmp_path / "model.keras"
    model.save(path)
    x = file_runs.rows(300_000)
    spread = mgpu.RayOptions(num_actors=2, cpus_per_actor=1)
    tuned = tmp_path / "tuned.json"
    predictor = mgpu.load(path, engine="ray", ray=spread, tuning=tuned)
    results = predictor.predict_proba(x, SIZE, verbose=0)
    np.testing.assert_allclose(results, model.predict(x, verbose=0), atol=1e-5)
    report = predictor.report
    assert (report.step, {*report.tried_steps}) == ("xla", {"plain", "frozen", "xla"})
    assert all(isinstance(rate, float) for rate in report.tried_steps.values())
    # Later runs begin with it and give its bits.
    again = predictor.predict_proba(x, SIZE, verbose=0)
    assert predictor.report.tried_steps == {}
    # As in a driver that reads the file.
    named = mgpu.load(path, compile="xla").predict_proba(x, SIZE // 2, verbose=0)
    if predictor.report.step == "xla":
        np.testing.assert_array_equal(again, named)
    assert tuned.exists()
