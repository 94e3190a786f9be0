"""Every contender computes what it says, and is caught where it does not."""

import time

import numpy as np
import pytest
import tensorflow as tf
from suite import checking, memory, models
from suite.contenders import CONTENDERS
from suite.interface import Contender, Setting
from suite.towers import kept_rows

from keras_mgpu_strategy.benchmark.rows import make_rows

BATCH = 4


@pytest.mark.parametrize(
    ("num_rows", "batch_size", "num_towers", "expected"),
    [
        (8, 4, 2, list(range(8))),
        (7, 4, 2, [0, 1, 2, 3, 4, 5]),  # the last batch of 3 loses one
        (6, 3, 2, [0, 1, 3, 4]),  # every batch loses one
        (3, 8, 4, []),  # fewer rows than towers: all are lost
        (0, 4, 2, []),
    ],
)
def test_make_parallel_drops_rows(num_rows, batch_size, num_towers, expected):
    kept = kept_rows(num_rows, batch_size, num_towers)
    assert kept.tolist() == expected
    assert kept.dtype.kind == "i"


@pytest.fixture(scope="module")
def setting(strategies):
    strategy = strategies[2]
    plain = models.build("two_inputs", 0)
    with strategy.scope():
        mirrored = models.build("two_inputs", 0)
    mirrored.set_weights(plain.get_weights())
    example = make_rows(plain, "two_inputs", 2 * BATCH, 0)
    return Setting(plain, mirrored, strategy, BATCH, example)


@pytest.fixture(scope="module")
def rows(setting):
    return make_rows(setting.plain, "two_inputs", 5 * BATCH + 3, 1)


IN_PROCESS = [name for name in CONTENDERS if name not in ("processes", "ray")]


@pytest.mark.parametrize("name", IN_PROCESS)
def test_contenders_agree_with_the_model(name, setting, rows):
    reference = setting.plain.predict(rows, verbose=0)
    contender = CONTENDERS[name](setting)
    record = checking.odd_rows(contender, rows, reference)
    bare = name in ("strategy_run", "limit")
    assert record == (
        None
        if bare
        else {
            "rows_in": 23,
            "rows_out": 22 if name == "make_parallel" else 23,
            "dropped": 1 if name == "make_parallel" else 0,
        }
    )


@pytest.mark.parametrize(("name", "rows_run"), [("strategy_run", 24), ("limit", 24)])
def test_bare_loops_count_the_rows_of_whole_steps(name, rows_run, setting):
    assert CONTENDERS[name](setting).rows_run(23) == rows_run


def test_bare_loops_run_each_replica_on_its_own_rows(setting):
    limit = CONTENDERS["limit"](setting)
    for replica, (step, batch) in enumerate(
        zip(limit._steps, limit._batches, strict=True)
    ):
        own = slice(replica * BATCH, (replica + 1) * BATCH)
        inputs = {key: array[own] for key, array in setting.example.items()}
        expected = setting.plain(inputs)
        with tf.device(setting.devices[replica]):
            outputs, mark = step(*batch)
        for key in expected:
            np.testing.assert_allclose(outputs[key], expected[key], 1e-5, 1e-6)
        first = tf.nest.flatten(outputs)[0]
        assert f"CPU:{replica}" in first.device
        np.testing.assert_array_equal(mark, first[0, :1])


class Wrong(Contender):
    def __init__(self, change):
        self._change = change

    def predict(self, x):
        return self._change(np.copy(x))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda x: x[::-1], "results differ by up to"),
        (lambda x: x[:-1], r"results of shape \(5, 1\), expected \(6, 1\)"),
    ],
)
def test_wrong_results_are_noticed(change, message):
    x = np.arange(6, dtype=np.float32).reshape(6, 1)
    with pytest.raises(ValueError, match=message):
        checking.first_call(Wrong(change), x, x)
    assert checking.first_call(Wrong(lambda y: y), x, x)["largest_difference"] == 0.0


@pytest.mark.parametrize("name", ["tiny", "transformer", "two_inputs"])
def test_rows_and_weights_are_the_same_for_the_same_seed(name):
    first, second = models.build(name, 3), models.build(name, 3)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x = make_rows(first, name, 2, 5)
    for one, other in zip(
        tf.nest.flatten(x),
        tf.nest.flatten(make_rows(second, name, 2, 5)),
        strict=True,
    ):
        np.testing.assert_array_equal(one, other)
    assert tf.nest.flatten(first(x))[0].shape[0] == 2


def test_peak_memory_sees_what_was_given_back():
    peak = memory.PeakMemory()
    peak.start()
    held = np.ones(8 << 20)
    deadline = time.monotonic() + 30
    while peak.peak - peak.before < 60e6 and time.monotonic() < deadline:
        time.sleep(0.01)
    del held
    peak.stop()
    assert 60e6 < peak.peak - peak.before < 200e6
