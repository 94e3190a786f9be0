"""Errors of Keras and TensorFlow are reduced to one line that says what is wrong."""

import keras
import pytest
import tensorflow as tf

from keras_mgpu_strategy.system.messages import cause_of


class Eager(keras.layers.Layer):
    def call(self, inputs):
        return inputs * inputs.numpy().max()


class Within(keras.Model):
    def __init__(self):
        super().__init__()
        self.eager = Eager()

    def call(self, inputs):
        return self.eager(inputs)


def raised(function, *args):
    with pytest.raises(Exception) as caught:  # noqa: PT011 - of any class
        function(*args)
    return cause_of(caught.value)


@pytest.mark.parametrize("autograph", [False, True])
def test_errors_in_layers(autograph):
    line = raised(tf.function(Within(), autograph=autograph), tf.ones((2, 2)))
    assert line.startswith("AttributeError: Eager.call(): ")
    assert line.endswith("object has no attribute 'numpy'")


def test_errors_in_functions():
    line = raised(tf.function(lambda x: tf.zeros((2, 3)) @ x), tf.ones((2, 2)))
    assert line.startswith("ValueError: Dimensions must be equal, but are 3 and 2")


def test_errors_in_configurations():
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
    config = keras.saving.serialize_keras_object(model)
    config["config"]["layers"][1]["config"]["activation"] = {
        "module": "builtins",
        "class_name": "function",
        "config": "pkg>mine",
        "registered_name": "function",
    }
    line = raised(keras.saving.deserialize_keras_object, config)
    assert line.startswith("TypeError: Could not locate function 'pkg>mine'.")
    assert "GlorotUniform" not in line
    assert len(line) < 400


def test_other_errors():
    assert cause_of(KeyError("a")) == "KeyError: 'a'"
    assert cause_of(ValueError("one\n  two")) == "ValueError: one two"
    assert len(cause_of(ValueError("long" * 1000))) < 600
