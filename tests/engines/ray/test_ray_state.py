"""State that a saved file does not keep, and random numbers, in processes of Ray."""

import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines.ray import model_file

ROWS = np.ones((400, 4), np.float32)


class Scaled(keras.layers.Layer):
    """Holds a number, an array, a variable and a lock."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.factor, self.offsets = 1.0, 0.0
        self.held = tf.Variable(1.0)
        self.lock = threading.Lock()

    def call(self, inputs):
        return inputs * self.factor * self.held + self.offsets


class Looked(keras.layers.Layer):
    """Has a table, which cannot be sent."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.table = table(2.0)

    def call(self, inputs):
        return inputs * self.table.lookup(tf.constant("a"))


class Active(keras.layers.Dropout):
    def call(self, inputs, training=None):
        return super().call(inputs, training=True)


class Forgetful(keras.layers.Layer):
    """Its configuration leaves out an argument that a layer within it uses."""

    def __init__(self, slope=0.5, **kwargs):
        super().__init__(**kwargs)
        self.leak = keras.layers.LeakyReLU(slope)

    def call(self, inputs):
        return self.leak(inputs)

    def get_config(self):
        return super().get_config()


def table(value):
    initializer = tf.lookup.KeyValueTensorInitializer(["a"], [value])
    return tf.lookup.StaticHashTable(initializer, -1.0)


def model_of(layer):
    return keras.Sequential([keras.Input((4,)), layer])


def scaled():
    layer = Scaled()
    layer.factor, layer.offsets = 3.0, np.arange(4, dtype="f4")
    layer.held.assign(7.0)
    return model_of(layer)


def in_processes(model, num_actors=2):
    return mgpu.Predictor(
        model,
        engine="ray",
        ray=mgpu.RayOptions(num_actors=num_actors, cpus_per_actor=1),
    )


@pytest.mark.slow
@pytest.mark.usefixtures("cluster")
class TestProcesses:
    def test_have_the_state_of_the_original(self):
        model = scaled()
        predictor = in_processes(model)
        expected = model.predict(ROWS, verbose=0)
        np.testing.assert_allclose(predictor.predict(ROWS, 16, verbose=0), expected)

    def test_draw_what_the_devices_of_one_process_draw(self, strategies):
        """Also without a seed: processes are sent the states of all seeds."""
        model = model_of(Active(0.5))
        with strategies[2].scope():
            expected = mgpu.Predictor(model).predict(ROWS, 20, verbose=0)
        results = in_processes(model).predict(ROWS, 20, verbose=0)
        np.testing.assert_array_equal(results, expected)

    def test_draw_different_numbers_by_ops_of_one_seed(self):
        def noise(inputs):
            return inputs + tf.random.normal(tf.shape(inputs), seed=3)

        results = in_processes(model_of(keras.layers.Lambda(noise))).predict(
            ROWS, 20, verbose=0
        )
        assert len({row.tobytes() for row in results}) == len(ROWS)

    def test_find_what_a_configuration_leaves_out(self):
        with pytest.raises(ValueError, match="leaky.*slope': 0.5.*not .*slope': 0.25"):
            in_processes(model_of(Forgetful(0.25)))


def test_a_model_that_is_sent_keeps_its_state():
    model = scaled()
    results = model_file.from_model(model).read(None).call(tf.constant(ROWS))
    np.testing.assert_allclose(results, model.predict(ROWS, verbose=0))


def test_what_cannot_be_sent_must_be_what_the_constructor_makes():
    model = model_of(Looked())
    packed = model_file.from_model(model)
    np.testing.assert_array_equal(packed.read(None).call(tf.constant(ROWS)), 2 * ROWS)
    model.layers[0].table = table(3.0)
    with pytest.raises(ValueError, match="'table' of layer .* cannot be sent"):
        model_file.from_model(model).read(None)
