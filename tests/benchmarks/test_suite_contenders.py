"""Every contender computes what it should, and is caught if it does not."""

import time

import numpy as np
import pytest
import tensorflow as tf
from suite import checking, memory, models
from suite.contenders import CONTENDERS
from suite.interface import Setting
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
    dropped = int(name == "make_parallel")
    expected = {"rows_in": 23, "rows_out": 23 - dropped, "dropped": dropped}
    assert record == (None if bare else expected)
    assert contender.rows_run(23) == (24 if bare else 23)  # of whole steps


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


@pytest.mark.parametrize("name", ["tiny", "transformer", "two_inputs"])
def test_rows_and_weights_are_the_same_for_the_same_seed(name):
    first, second = models.build(name, 3), models.build(name, 3)
    for one, other in zip(first.get_weights(), second.get_weights(), strict=True):
        np.testing.assert_array_equal(one, other)
    x, same = make_rows(first, name, 2, 5), make_rows(second, name, 2, 5)
    tf.nest.map_structure(np.testing.assert_array_equal, x, same)
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
