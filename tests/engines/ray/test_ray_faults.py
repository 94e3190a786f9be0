"""Faults in processes: killed ones, errors, memory."""

import os
import re
import signal

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.engines.ray import acting

pytestmark = pytest.mark.slow

BATCH, NUM_ROWS = 4, 400


@pytest.fixture(scope="module")
def local(strategies):
    with strategies[1].scope():
        return mgpu.Predictor(acting.acting_model())


@pytest.fixture(scope="module")
def pair(cluster):
    model = acting.acting_model()
    return mgpu.Predictor(
        model, engine="ray", ray=mgpu.RayOptions(num_actors=2, cpus_per_actor=1)
    )


def run(predictor, rows):
    """Results that were delivered, and the error that ended the run."""
    results, stop = [], 0
    try:
        for batch in predictor.predict_iter(rows, BATCH * predictor.num_replicas):
            assert batch.start == stop
            results.append(batch.outputs)
            stop = batch.stop
    except Exception as error:
        return results, error
    return np.concatenate(results), None


def range_in(text):
    return tuple(map(int, re.findall(r"rows (\d+) to (\d+)", text)[0]))


def test_an_error_of_the_model_arrives_as_itself(pair, local):
    rows = acting.numbered(NUM_ROWS, r201=acting.FAILS)
    for predictor in (local, pair):
        delivered, error = run(predictor, rows)
        assert type(error) is tf.errors.InvalidArgumentError
        assert "ValueError: on purpose" in str(error)
        first, stop = range_in(
            next(n for n in getattr(error, "__notes__", []) if "Raised" in n)
        )
        assert first <= 201 < stop
        np.testing.assert_array_equal(np.concatenate(delivered), 2 * rows[:first] + 1)
    assert "In the process of replica" in getattr(error, "__notes__", [])[-1]
    assert "in _act" in getattr(error, "__notes__", [])[-1]


def test_processes_back_off_when_memory_runs_out(pair):
    rows = acting.numbered(100) * 0 + acting.TAKES_MEMORY
    rows[:, 0] = np.arange(100)
    np.testing.assert_array_equal(pair.predict(rows, 32, verbose=0), 2 * rows + 1)
    report = pair.report
    assert [(b.failed, b.batch_size) for b in report.back_offs] == [
        (16, 8), (8, 4), (4, 2),
    ]  # fmt: skip
    assert (report.rows, report.batch_size) == (100, 2)
    pair.predict(rows, 32, verbose=0)
    assert pair.report.back_offs == ()


def test_a_killed_process_loses_no_row(pair, capfd):
    rows = acting.numbered(NUM_ROWS) * 0 + acting.SLEEPS
    rows[:, 0] = np.arange(NUM_ROWS)
    before = acting.pids_of(pair)
    batches = pair.predict_iter(rows, BATCH * 2)
    results = [next(batches)]
    os.kill(before[0], signal.SIGKILL)
    results += batches
    assert [b.start for b in results[1:]] == [b.stop for b in results[:-1]]
    joined = np.concatenate([batch.outputs for batch in results])
    np.testing.assert_array_equal(joined, 2 * rows + 1)
    after = acting.pids_of(pair)
    assert after[1] == before[1]
    assert after[0] != before[0]
    assert not os.path.exists(f"/proc/{before[0]}")
    assert pair.report.replica_rows[0] > 0
    assert acting.printed(capfd) == ""


def test_rows_that_end_every_process_are_an_error(pair, tmp_path):
    rows, path = acting.numbered(NUM_ROWS), tmp_path / "out.npy"
    bad = acting.numbered(NUM_ROWS, r205=acting.KILLS)
    how = {"verbose": 0, "method": "predict"}
    with pytest.raises(RuntimeError, match="ended 3 processes") as caught:
        pair.predict_to(path, bad, BATCH * 2, **how)
    first, stop = range_in(str(caught.value))
    assert first <= 205 < stop
    assert not path.exists()
    with pytest.raises(ValueError, match=r"\(values of x: "):  # they are other rows
        pair.predict_to(path, rows, BATCH * 2, resume=True, **how)
    pair.predict_to(path, rows, BATCH * 2, overwrite=True, **how)
    np.testing.assert_array_equal(np.load(path), 2 * rows + 1)
