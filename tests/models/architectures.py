"""Models of many kinds, for every replica."""

import keras
import numpy as np
import tensorflow as tf
import tf_keras

FACTOR = 3.0
LIBRARIES = {"keras": keras, "tf_keras": tf_keras}


def sequential(lib):
    layers = lib.layers
    return lib.Sequential(
        [
            lib.Input((4,)),
            layers.Dense(5, activation=lambda x: tf.nn.tanh(x) * FACTOR),
            layers.BatchNormalization(),
            layers.Dropout(0.5),
            layers.Dense(3, trainable=False),
        ]
    )


def deferred(lib):
    return lib.Sequential([lib.layers.Dense(3)])


def shared_and_nested(lib):
    """One Dense used by the model and by a model inside it, dicts in and out."""
    dense = lib.layers.Dense(4)
    scale = lib.layers.Lambda(lambda x: x * FACTOR)
    inside = lib.Input((4,))
    inner = lib.Model(inside, dense(scale(inside)))
    x = lib.Input((4,), name="x")
    added = lib.layers.Add()([inner(x), dense(dense(x))])
    return lib.Model({"x": x}, {"sum": added, "inner": inner(x)})


def recurrent(lib):
    layers = lib.layers
    return lib.Sequential(
        [
            lib.Input((4,)),
            layers.Reshape((4, 1)),
            layers.Bidirectional(layers.LSTM(2, return_sequences=True)),
            layers.TimeDistributed(layers.Dense(2)),
        ]
    )


def normalized(lib):
    layer = lib.layers.Normalization()
    layer.adapt(np.random.default_rng(5).random((50, 4)).astype("float32"))
    return lib.Sequential([lib.Input((4,)), layer, lib.layers.Dense(2)])


def mixed(lib):
    layers = lib.layers
    return lib.Sequential(
        [
            lib.Input((4,)),
            layers.Dense(3, dtype="mixed_bfloat16"),
            layers.Activation("softmax", dtype="float32"),
        ]
    )


ARCHITECTURES = [
    sequential,
    deferred,
    shared_and_nested,
    recurrent,
    normalized,
    mixed,
]


class Scale(keras.layers.Layer):
    """Not registered; one trainable weight, one not, one of them without a name."""

    def __init__(self, units, **kwargs):
        super().__init__(**kwargs)
        self.units = units

    def build(self, input_shape):
        self.kernel = self.add_weight(shape=(input_shape[-1], self.units))
        self.factor = self.add_weight(name="factor", trainable=False, shape=())
        self.factor.assign(2.0)

    def call(self, inputs):
        return inputs @ self.kernel * self.factor

    def get_config(self):
        return {**super().get_config(), "units": self.units}


class Subclassed(keras.Model):
    """Without `**kwargs` or `get_config`, as in models that are never saved."""

    def __init__(self, units=3):
        super().__init__()
        self.scale = Scale(units)
        self.dense = keras.layers.Dense(units, activation=lambda x: x * FACTOR)
        self.normalize = keras.layers.BatchNormalization()

    def call(self, inputs, training=None):
        outputs = self.dense(self.scale(inputs))
        return self.normalize(outputs, training=training)


class Tokens(keras.Model):
    """Keras cannot trace it from shapes: it takes strings and two arguments."""

    def __init__(self):
        super().__init__()
        self.lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
        self.embed = keras.layers.Embedding(3, 2)

    def call(self, inputs):
        return self.embed(self.lookup(inputs["word"])) * inputs["weight"]


class Forgetful(keras.Model):
    """Its configuration leaves out arguments of its constructor."""

    def __init__(self, slope=0.5, extra=None):
        super().__init__()
        self.leak = keras.layers.LeakyReLU(slope)
        self.dense = keras.layers.Dense(3)
        self.extra = extra

    def call(self, inputs):
        outputs = self.dense(self.leak(inputs))
        return self.extra(outputs) if self.extra else outputs

    def get_config(self):
        return {}


class FromLayers(keras.Model):
    """Its constructor takes objects that no configuration describes."""

    def __init__(self, parts):
        super().__init__()
        self.parts = parts

    def call(self, inputs):
        for part in self.parts:
            inputs = part(inputs)
        return inputs
