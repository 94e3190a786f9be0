"""`outputs=`: names without an output, and models without outputs to name."""

import re

import keras
import pytest

import keras_mgpu_strategy as mgpu


def shared():
    x = keras.Input((4,))
    dense = keras.layers.Dense(4, name="dense")
    return keras.Model(x, keras.layers.Dense(1, name="head")(dense(dense(x))))


def holding_own():
    x = keras.Input((4,))
    return keras.Model(x, keras.layers.Dense(2, name="avg_pool")(Own(name="own")(x)))


class Own(keras.Model):
    def __init__(self, name=None):
        super().__init__(name=name)
        self.dense = keras.layers.Dense(4, name="dense")

    def call(self, inputs):
        return self.dense(inputs)


class OwnStep(keras.Model):
    def predict_step(self, data):
        return self(data[0]) + 1


def own_step():
    x = keras.Input((4,))
    return OwnStep(x, keras.layers.Dense(2, name="dense")(x))


REFUSED = {
    "shared": (shared, "dense", r"'dense' is used at 2 places.*expected one.*Identity"),
    "near": (holding_own, "avgpool", r"no such output. The nearest names are \['avg_p"),
    "far": (shared, "zz/y", r"Expected one of \['.*', 'dense', 'head'\]\."),
    "own call": (Own, "dense", r"runs its own `call`. Return what you need from"),
    "inside": (holding_own, "own/dense", r"'own' \(Own\) runs its own `call`.*Return"),
    "own step": (own_step, "dense", r"its own `predict_step`.*keras.Model\(model.in"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_refused(name):
    make, outputs, message = REFUSED[name]
    with pytest.raises(ValueError, match=re.compile(message, re.DOTALL)):
        mgpu.Predictor(make(), outputs=outputs)
