"""What a Predictor remembers of its runs, and a real search."""

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines import choosing
from keras_mgpu_strategy.engines.context import ChunkSizes
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.learned import Learned
from keras_mgpu_strategy.runs.tuning import Found


def report(size=64, step="plain", tried=()):
    clock = StageClock(1)
    clock.begin_step(step, is_settled=True)
    clock.add_chunk(0, size, size, 0)
    for batch in tried:
        clock.add_trial(batch)
    return clock.report()


def learned(seconds_per_row=0.001):
    result = Learned(ChunkSizes(2))
    result.chunk_sizes.restart(seconds_per_row)
    return result


def test_a_step_is_remembered_by_batch():
    memory = learned()
    assert memory.step(64, None, 2) is None
    assert memory.learn(report(64, "xla"), "xla") == Found("xla", None, 0.001)
    assert memory.step(64, None, 2) == "xla"
    assert memory.step(32, None, 2) is None
    assert memory.learn(report(32), None) is None  # not a search
    assert memory.step(32, None, 2) is None


def test_small_runs_make_and_compare_nothing():
    memory = learned()
    memory.recall(Found("frozen", None, 1.0), 64)
    assert memory.step(64, 5999, 2) is None  # it would have to be made
    assert memory.step(64, 6001, 2) == "frozen"
    memory.learn(report(64, "frozen"), None)
    assert memory.step(64, 401, 2) == "frozen"
    assert memory.step(64, 399, 2) is None  # weights would be compared
    memory.learn(report(32, "xla"), "xla")
    assert memory.step(32, 1, 2) == "xla"


def test_a_tuned_batch_has_its_step():
    memory = learned()
    found = memory.learn(report(512, "xla", tried=(256, 512)), "xla")
    assert (found, memory.batch_size) == (Found("xla", 512, 0.001), 512)
    # A run of fewer rows than that has a smaller batch.
    assert memory.step(128, None, 2) == "xla"
    other = Learned(ChunkSizes(2))
    other.recall(found, None)
    assert (other.batch_size, other.step(512, None, 2)) == (512, "xla")
    assert other.chunk_sizes.seconds(10) == pytest.approx(0.01)


def lstm():
    inputs = keras.Input((20, 8))
    return keras.Model(inputs, keras.layers.Dense(1)(keras.layers.LSTM(64)(inputs)))


@pytest.fixture(scope="module")
def rows():
    return np.random.default_rng(0).random((400_000, 20, 8), np.float32)


@pytest.mark.parametrize("num_replicas", [1, 2])
def test_a_long_run_searches_once(
    num_replicas, strategies, rows, tmp_path, monkeypatch
):
    monkeypatch.setattr(choosing, "_MOST_SHARE_OF_RUN", 0.5)  # machines may be busy
    keras.utils.set_random_seed(0)
    with strategies[num_replicas].scope():
        model = lstm()
        tuned, plain = tmp_path / "tuned.json", mgpu.Predictor(model, compile="plain")
        predictor = mgpu.Predictor(model, tuning=tuned)
    size = 64 * num_replicas
    few = predictor.predict(rows[:1000], size, verbose=0)
    assert predictor.report.tried_steps == {}
    results = predictor.predict(rows, size, verbose=0)
    expected = plain.predict(rows, size, verbose=0)
    np.testing.assert_allclose(results, expected, atol=1e-5)
    np.testing.assert_array_equal(few, expected[:1000])
    first = predictor.report
    assert {*first.tried_steps} == {"plain", "frozen", "xla"}
    assert all(isinstance(rate, float) for rate in first.tried_steps.values()), first
    assert first.tried_steps[first.step] >= first.tried_steps["plain"]
    # Later runs, and other processes, use the same.
    again = predictor.predict(rows, size, verbose=0)
    with strategies[num_replicas].scope():
        other = mgpu.Predictor(model, tuning=tuned)
    found = other.predict(rows, size, verbose=0)
    for one in (predictor, other):
        assert one.report.tried_steps == {}
    assert predictor.report.step == first.step
    if other.report.step == first.step:  # unless the run is too short to make it
        np.testing.assert_array_equal(found, again)
