"""A copy follows its original, bit by bit, and only what differs is written."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy import models
from keras_mgpu_strategy.models import following, state, variables


class Held(keras.layers.Layer):
    """Variables of several dtypes and sizes, and of a shape that is not declared."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        dtypes = ("float16", "bfloat16", "float64", "int8", "int64", "bool", "uint32")
        for dtype in ("float32", *dtypes):
            for size in (0, 1, 3, 8):
                self.add_weight((size,), "zeros", dtype, trainable=False)

    def call(self, inputs):
        return inputs


class Pair:
    """A model and its copy on several replicas, and which variables were written."""

    def __init__(self, model, strategy, monkeypatch):
        self.model = model
        self.copy = models.replicate(model, strategy).model
        self.written = []
        self._follower = models.Follower()
        monkeypatch.setattr(following, "assign_all", self._assign_all)

    def _assign_all(self, sources, targets):
        self.written = [variable.path for variable in sources]
        state.assign_all(sources, targets)

    def follow(self):
        self._follower.follow(self.model, self.copy)
        for before, after in zip(
            self.model.variables, self.copy.variables, strict=True
        ):
            expected = variables.host_value(before).tobytes()
            for copy in variables.copies_of(after):
                assert np.asarray(copy).tobytes() == expected, before.path
        return self.written


@pytest.fixture
def pair(strategies, monkeypatch):
    layers = [keras.Input((3,)), Held(), keras.layers.Dense(4)]
    return Pair(keras.Sequential(layers), strategies[2], monkeypatch)


def test_only_variables_that_differ_are_written(pair):
    assert pair.follow() == []
    for variable in pair.model.variables:
        if variable.shape == (0,):
            continue
        value = np.zeros(variable.shape, variable.dtype)
        value.flat[-1] = 1
        variable.assign(value)
        assert pair.follow() == [variable.path]
        assert pair.follow() == []


@pytest.mark.parametrize("value", [-0.0, np.nan])
def test_bits_are_compared(value, pair):
    kernel = pair.model.layers[-1].kernel
    kernel.assign(np.zeros(kernel.shape))
    pair.follow()
    kernel.assign(np.full(kernel.shape, value))
    assert pair.follow() == [kernel.path]
    assert pair.follow() == []


def test_what_a_replica_changed_in_its_copy_is_written_again(pair):
    pair.follow()
    bias = pair.copy.layers[-1].bias
    variables.copies_of(bias)[1].assign(tf.ones(4))
    assert pair.follow() == [pair.model.layers[-1].bias.path]


def test_an_original_on_replicas_of_its_own_is_followed(strategies, monkeypatch):
    with strategies[3].scope():
        model = keras.Sequential([keras.Input((3,)), keras.layers.BatchNormalization()])
    pair = Pair(model, strategies[2], monkeypatch)
    mean = model.layers[-1].moving_mean
    for replica, copy in enumerate(variables.copies_of(mean)):
        copy.assign(tf.fill([3], replica + 1.0))
    assert mean.path in pair.follow()
