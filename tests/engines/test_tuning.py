"""The search for a batch size, on a stand-in whose speed is known."""

import time

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu

ROWS = np.random.default_rng(0).random((400_000, 4), dtype=np.float32)


class Costs(keras.layers.Layer):
    """Takes a fixed time a call, and a time a row above `free` rows."""

    def __init__(self, per_call, per_row, free, **kwargs):
        super().__init__(**kwargs)
        self.per_call, self.per_row, self.free = per_call, per_row, free

    def _spend(self, inputs):
        rows = max(inputs.shape[0] - self.free, 0)
        time.sleep(self.per_call + self.per_row * rows)
        return inputs

    def call(self, inputs):
        outputs = tf.numpy_function(self._spend, [inputs], inputs.dtype, stateful=False)
        outputs.set_shape(inputs.shape)
        return outputs * 2


def predictor_of(strategy, layer):
    with strategy.scope():
        return mgpu.Predictor(keras.Sequential([keras.Input((4,)), layer]))


def test_a_cost_per_call_makes_the_batch_grow(strategies):
    predictor = predictor_of(strategies[1], Costs(0.02, 0.0, 0))
    result = predictor.predict(ROWS, verbose=0)
    np.testing.assert_array_equal(result, ROWS * 2)
    assert len(predictor.report.tried_batches) > 1
    assert predictor.report.batch_size > 1024
    tuned = predictor.report.batch_size
    predictor.predict(ROWS, verbose=0)
    assert predictor.report.tried_batches == ()
    assert predictor.report.batch_size == tuned


def test_a_batch_that_slows_rows_down_is_not_kept(strategies):
    predictor = predictor_of(strategies[1], Costs(0.001, 1e-4, 1024))
    result = predictor.predict(ROWS, verbose=0)
    np.testing.assert_array_equal(result, ROWS * 2)
    assert predictor.report.batch_size == 1024


@pytest.mark.parametrize("num_rows", [0, 1, 5, 33, 1000])
def test_few_rows_are_not_worth_a_trial(num_rows, strategies):
    predictor = predictor_of(strategies[2], Costs(0.0, 0.0, 0))
    result = predictor.predict(ROWS[:num_rows], verbose=0)
    np.testing.assert_array_equal(result, ROWS[:num_rows] * 2)
    assert predictor.report.tried_batches == ()


def test_a_generator_loses_no_row_to_a_trial(strategies):
    predictor = predictor_of(strategies[2], Costs(0.01, 0.0, 0))
    batches = (ROWS[start : start + 700] for start in range(0, len(ROWS), 700))
    result = predictor.predict(batches, verbose=0)
    np.testing.assert_array_equal(result, ROWS * 2)
    assert len(predictor.report.tried_batches) > 1
