"""Rows of unequal length: padded, run by length, and put back in order."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.file_runs import with_weights

RANDOM = np.random.default_rng(3)
LENGTHS = np.minimum(RANDOM.zipf(1.6, 300), 40)
ROWS = [RANDOM.integers(1, 50, length).astype(np.int32) for length in LENGTHS]
ENGINES = pytest.mark.parametrize("engine", ["threads", "mirrored"])


def masked_mean(num_outputs=3):
    """Ignores padding: the mean over the tokens that are not masked."""
    tokens = keras.Input((None,), dtype="int32")
    known = keras.layers.Embedding(50, 4, mask_zero=True)(tokens)
    mean = keras.layers.GlobalAveragePooling1D()(known)
    outputs = keras.layers.Dense(num_outputs, "softmax")(mean)
    return with_weights(keras.Model(tokens, outputs), seed=2)


def alone(model, rows):
    """The results of each row alone, without padding."""
    return np.concatenate([np.asarray(model(row[np.newaxis])) for row in rows])


def predictor_on(strategies, num_replicas, model, **options):
    with strategies[num_replicas].scope():
        return mgpu.Predictor(model, **options)


@ENGINES
def test_the_same_bits_on_any_number_of_replicas(strategies, engine):
    model = masked_mean()
    found = []
    for num_replicas in (1, 2, 3):
        predictor = predictor_on(strategies, num_replicas, model, engine=engine)
        for pad, size in ((mgpu.Pad(max_tokens=90, window=64), None), (mgpu.Pad(), 6)):
            batch_size = size and size * num_replicas
            found.append(predictor.predict(ROWS, batch_size, verbose=0, pad=pad))
    for of_tokens, of_rows in zip(found[::2], found[1::2], strict=True):
        np.testing.assert_array_equal(of_tokens, found[0])
        np.testing.assert_array_equal(of_rows, found[1])


def test_arguments_that_contradict_each_other(strategies):
    predictor = predictor_on(strategies, 2, masked_mean())
    with pytest.raises(ValueError, match="max_tokens=100 and batch_size=8"):
        predictor.predict(ROWS, 8, pad=mgpu.Pad(max_tokens=100))
    with pytest.raises(ValueError, match="max_tokens=39 .* longest length, 40 tokens"):
        predictor.predict(ROWS, pad=mgpu.Pad(max_tokens=39))
    for value in (0.5, float("nan"), float("inf"), 1e12, "a"):
        with pytest.raises(ValueError, match="not a value of int32"):
            predictor.predict(ROWS, pad=mgpu.Pad(value=value))


def test_a_value_is_rounded_as_the_layer_rounds_it(strategies):
    inputs = keras.Input((None, 2))
    model = keras.Model(inputs, keras.layers.GRU(3)(keras.layers.Masking(0.1)(inputs)))
    rows = [np.ones((n, 2), np.float32) for n in (5, 1, 9, 2)]
    predictor = predictor_on(strategies, 1, model)
    found = predictor.predict(rows, verbose=0, pad=mgpu.Pad(value=0.1))
    np.testing.assert_allclose(found, alone(model, rows), rtol=0, atol=1e-5)


def test_a_model_of_one_length_takes_no_pad(strategies):
    model = keras.Sequential([keras.Input((8,)), keras.layers.Dense(1)])
    predictor = predictor_on(strategies, 1, model)
    rows = np.ones((4, 8), np.float32)
    for x in (rows, rows.tolist(), iter([rows])):
        with pytest.raises(ValueError, match="declares the length of its rows, so"):
            predictor.predict(x, verbose=0, pad=mgpu.Pad())


@pytest.mark.filterwarnings("ignore:Layer .* was passed an input with a mask")
def test_a_lost_mask_is_found_although_the_longest_row_comes_first(strategies):
    inputs = keras.Input((None,), dtype="int32")
    x = keras.layers.Embedding(50, 4, mask_zero=True)(inputs)
    x = keras.layers.Conv1D(3, 3, padding="same")(x)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling1D()(x))
    predictor = predictor_on(strategies, 1, model)
    batches = ([np.arange(1, n, dtype=np.int32)] for n in (20, 5, 3))
    with pytest.raises(ValueError, match="does not ignore padding, although it has"):
        predictor.predict(batches, verbose=0, pad=mgpu.Pad())


class HoldsTokens(keras.layers.Layer):
    """Simulates a device that has memory for only so many tokens."""

    most = 200

    def _allocate(self, inputs):
        if inputs.shape[0] * inputs.shape[1] > self.most:
            raise MemoryError(f"{inputs.shape}")  # becomes ResourceExhausted
        return inputs

    def call(self, inputs):
        outputs = tf.py_function(self._allocate, [inputs], inputs.dtype)
        outputs.set_shape(inputs.shape)
        return outputs


@ENGINES
def test_batches_shrink_if_memory_runs_out(strategies, engine):
    tokens = keras.Input((None,), dtype="int32")
    model = masked_mean()
    held = keras.Model(tokens, model(HoldsTokens()(tokens)))
    predictor = predictor_on(strategies, 2, held, engine=engine)
    pad = mgpu.Pad(max_tokens=1600, lengths=[2, 8, 40], window=128)
    found = predictor.predict(ROWS, verbose=0, pad=pad)
    np.testing.assert_allclose(found, alone(model, ROWS), rtol=0, atol=1e-5)
    report = predictor.report
    assert report.rows == len(ROWS)
    assert 1 <= report.batch_size <= 5  # of the longest length
    assert report.back_offs
