"""Batches that do not fit into memory: run smaller, with no row lost or doubled."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu

ROWS = np.random.default_rng(0).random((203, 4), dtype=np.float32)


class FitsAtMost(keras.layers.Layer):
    """Stands for a device that holds `most` rows, from the `after`-th call on."""

    def __init__(self, most, after=0, **kwargs):
        super().__init__(**kwargs)
        self.most, self.after, self.calls = most, after, 0

    def _allocate(self, inputs):
        self.calls += 1
        if self.calls > self.after and inputs.shape[0] > self.most:
            raise MemoryError(f"{inputs.shape[0]} rows")  # becomes ResourceExhausted
        return inputs

    def call(self, inputs):
        outputs = tf.py_function(self._allocate, [inputs], inputs.dtype)
        outputs.set_shape(inputs.shape)
        return outputs


def predictor_of(strategy, layer, engine="threads"):
    with strategy.scope():
        inputs = keras.Input((4,))
        outputs = keras.layers.Dense(3)(layer(inputs))
        return mgpu.Predictor(keras.Model(inputs, outputs), engine=engine)


def expected_of(predictor):
    kernel, bias = predictor.model.get_weights()
    return ROWS @ kernel + bias


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
@pytest.mark.parametrize(("num_replicas", "after"), [(1, 0), (2, 1), (3, 0), (4, 3)])
def test_no_row_is_lost(engine, num_replicas, after, strategies):
    layer = FitsAtMost(3, after)
    predictor = predictor_of(strategies[num_replicas], layer, engine)
    result = predictor.predict(ROWS, batch_size=16 * num_replicas, verbose=0)
    np.testing.assert_allclose(result, expected_of(predictor), rtol=1e-5, atol=1e-6)
    report = predictor.report
    assert report.batch_size == 2
    assert [(b.failed, b.batch_size) for b in report.back_offs] == [
        (16, 8), (8, 4), (4, 2),
    ]  # fmt: skip
    assert report.rows == len(ROWS)


def test_the_next_run_begins_where_the_last_one_fitted(strategies):
    predictor = predictor_of(strategies[2], FitsAtMost(3))
    predictor.predict(ROWS, batch_size=32, verbose=0)
    predictor.predict(ROWS, batch_size=32, verbose=0)
    assert predictor.report.back_offs == ()
    assert predictor.report.batch_size == 2


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_what_was_delivered_stays_and_a_generator_is_read_once(engine, strategies):
    predictor = predictor_of(strategies[2], FitsAtMost(5, after=4), engine)
    read = []

    def batches():
        for start in range(0, len(ROWS), 29):
            read.append(start)
            yield ROWS[start : start + 29]

    parts = list(predictor.predict_iter(batches(), batch_size=30))
    assert read == list(range(0, len(ROWS), 29))
    assert [part.start for part in parts] == [
        0, *np.cumsum([part.num_rows for part in parts])[:-1],
    ]  # fmt: skip
    joined = np.concatenate([part.outputs for part in parts])
    np.testing.assert_allclose(joined, expected_of(predictor), rtol=1e-5, atol=1e-6)
    assert predictor.report.back_offs


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_one_row_that_does_not_fit_is_an_error(engine, strategies):
    predictor = predictor_of(strategies[2], FitsAtMost(0, after=0), engine)
    with pytest.raises(MemoryError, match=r"out of memory at row \d+ with 1 rows"):
        predictor.predict(ROWS, batch_size=8, verbose=0)


def test_other_errors_of_the_model_are_not_taken_for_a_lack_of_memory(strategies):
    class Fails(keras.layers.Layer):
        def call(self, inputs):
            tf.debugging.assert_less(tf.shape(inputs)[0], 1, "on purpose")
            return tf.identity(inputs)

    predictor = predictor_of(strategies[2], Fails())
    with pytest.raises(tf.errors.InvalidArgumentError, match="on purpose"):
        predictor.predict(ROWS, verbose=0)
    assert predictor.report.back_offs == ()
