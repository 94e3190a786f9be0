"""Many calls of many sizes: nothing is traced again, nothing is left behind."""

import gc
import os
import threading

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu


class CountsTraces(keras.layers.Layer):
    traces = 0

    def call(self, inputs):
        CountsTraces.traces += 1
        return inputs * 2.0


def resident_bytes():
    gc.collect()
    with open("/proc/self/statm") as file:
        return int(file.read().split()[1]) * os.sysconf("SC_PAGE_SIZE")


@pytest.mark.slow
def test_two_thousand_calls_of_changing_sizes_leave_nothing_behind(strategies):
    with strategies[2].scope():
        model = keras.Sequential(
            [keras.Input((16,)), CountsTraces(), keras.layers.Dense(4)]
        )
        predictor = mgpu.Predictor(model)
    rows = np.ones((300, 16), np.float32)
    for size in range(300):
        predictor.predict(rows[:size], verbose=0)
    memory = resident_bytes()
    threads, files = threading.active_count(), len(os.listdir("/proc/self/fd"))
    for call in range(2000):
        assert predictor.predict(rows[: call * 7 % 300], verbose=0).shape[1] == 4
    # Once to build; then for each replica, batches of 1, 2, 4 ... 256 rows.
    assert CountsTraces.traces <= 1 + 2 * 9
    assert threading.active_count() == threads
    assert len(os.listdir("/proc/self/fd")) == files
    assert resident_bytes() - memory < 10 << 20
