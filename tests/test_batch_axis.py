"""Outputs that do not have one row per row of the input are refused."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import helpers


class Constant(keras.layers.Layer):
    """Returns the same tensor for every input."""

    def __init__(self, *shape):
        super().__init__()
        self.shape = shape

    def call(self, inputs):
        return tf.zeros(self.shape)


class Total(keras.layers.Layer):
    def call(self, inputs):
        return tf.reduce_sum(inputs)


class Transposed(keras.layers.Layer):
    def call(self, inputs):
        return tf.transpose(inputs)


class Ragged(keras.layers.Layer):
    def call(self, inputs):
        return tf.RaggedTensor.from_tensor(inputs)


class Subclassed(keras.Model):
    """Declares no outputs; the second one is a layer's."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return {"good": inputs, "bad": self.layer(inputs)}


def functional(layer):
    inputs = keras.Input((2,))
    return keras.Model(inputs, {"good": inputs, "bad": layer(inputs)})


@pytest.mark.parametrize(
    ("engine", "wrap", "layer", "message"),
    [
        ("threads", functional, Total(), r": .* gave shape \(\)"),
        ("threads", functional, Constant(), r": .* gave shape \(\)"),
        ("threads", Subclassed, Constant(3, 5), r": 8 input rows gave shape \(3, 5\)"),
        # As many rows as the per-replica batch, by chance.
        ("threads", functional, Constant(8, 5), r": 9 input rows gave shape \(8, 5\)"),
        ("mirrored", functional, Constant(8, 5), r": 9 input rows gave shape \(8, 5\)"),
        ("threads", functional, Transposed(), r": 8 input rows gave shape \(2, 8\)"),
    ],
)
def test_an_output_without_a_batch_axis_is_refused(
    layer, message, wrap, engine, strategies
):
    with strategies[2].scope():
        predictor = mgpu.Predictor(wrap(layer), engine=engine)
    message = f"has no batch axis{message}"
    with helpers.no_thread_left(), pytest.raises(ValueError, match=message) as caught:
        predictor.predict(helpers.numbered_rows(40), 16, verbose=0)
    assert "output['bad']" in str(caught.value)
    assert "Leave this output out of the model" in str(caught.value)


def test_a_good_output_with_a_fixed_batch_axis_passes(strategies):
    inputs = keras.Input(batch_shape=(4, 2))
    with strategies[2].scope():
        predictor = mgpu.Predictor(
            keras.Model(inputs, keras.layers.Rescaling(2.0)(inputs))
        )
    rows = helpers.numbered_rows(10)
    np.testing.assert_array_equal(predictor.predict(rows, verbose=0), 2 * rows)


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_a_ragged_output_is_refused(engine, strategies):
    with strategies[2].scope():
        predictor = mgpu.Predictor(Subclassed(Ragged()), engine=engine)
    message = r"output\['bad'\] is a RaggedTensor.*\.to_tensor\(\)"
    with helpers.no_thread_left(), pytest.raises(ValueError, match=message):
        predictor.predict(helpers.numbered_rows(40), 16, verbose=0)


class Empty(keras.Model):
    def call(self, inputs):
        return {}


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_a_model_without_outputs_is_refused(engine, strategies):
    with strategies[2].scope():
        predictor = mgpu.Predictor(Empty(), engine=engine)
    message = "The model returns {}, expected at least one tensor"
    with helpers.no_thread_left(), pytest.raises(ValueError, match=message):
        predictor.predict(helpers.numbered_rows(40), 16, verbose=0)
