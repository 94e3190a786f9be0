"""Rebuilt models whose code hides state, and healthy ones."""

import copy
import functools
import itertools
import random
import time
import weakref

import keras
import numpy as np
import pytest
import tensorflow as tf
from architectures import LIBRARIES

from keras_mgpu_strategy import models
from keras_mgpu_strategy.models import agreement
from keras_mgpu_strategy.models.attributes import own_attributes

pytestmark = pytest.mark.filterwarnings("ignore:`build.*was called on layer")

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)
BY_LAYER = weakref.WeakKeyDictionary()
COUNT = itertools.count(1)


def own_layer(call, lib=keras, **members):
    """A layer of a user-defined class."""
    members = {"call": call, **members}
    return type("Own", (lib.layers.Layer,), members)(name="own")


def model_of(layer, lib=keras):
    return lib.Sequential([lib.Input((4,)), layer, lib.layers.Dense(2, name="last")])


def by_id(lib):
    factors = {}
    layer = own_layer(lambda self, x: x * factors.get(id(self), 1.0), lib)
    factors[id(layer)] = 3.0
    return layer


def by_layer(lib):
    layer = own_layer(lambda self, x: x * BY_LAYER.get(self, 1.0), lib)
    BY_LAYER[layer] = 3.0
    return layer


def in_slots(lib):
    def call(self, x):
        return x * getattr(self, "factor", 1.0)

    layer = own_layer(call, lib, __slots__=("factor",))
    layer.factor = 3.0
    return layer


def cached(lib):
    """Computed once from what has changed since."""
    factor = functools.cache(lambda layer: layer.seed + 1.0)
    layer = own_layer(lambda self, x: x * factor(self), lib, seed=0.0)
    factor(layer)
    layer.seed = 2.0
    return layer


def under_a_name_of_keras(lib):
    """In an attribute that a class of Keras sets too, so it looks like Keras' own."""

    class Shift(lib.layers.UnitNormalization):
        def get_config(self):
            config = super().get_config()
            return {key: config[key] for key in config.keys() - {"axis"}}

        def call(self, inputs):
            return inputs + self.axis

    layer = Shift(name="own")
    layer.axis = 0
    return layer


def attributes_of(model):
    return [
        (name, list(value.items()) if isinstance(value, dict) else copy.copy(value))
        for layer in models.layers_of(model)
        for name, value in own_attributes(layer).items()
    ]


HIDDEN = [by_id, by_layer, in_slots, cached, under_a_name_of_keras]


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("hidden", HIDDEN)
def test_finds_state_that_was_not_carried_over(hidden, library, strategies):
    lib = LIBRARIES[library]
    model = model_of(hidden(lib), lib)
    with pytest.raises(
        ValueError,
        match=r"(?s)cannot be rebuilt on every device: its results differ by up to .*, "
        r"first in layer 'own'.*in attributes or variables.*'own' .*mgpu.scope\(\)",
    ):
        models.replicate(model, strategies[2])


def test_finds_it_in_a_subclassed_model(strategies):
    class Whole(keras.Model):
        def __init__(self):
            super().__init__()
            self.dense = keras.layers.Dense(2)

        def call(self, inputs):
            return {"a": self.dense(inputs), "b": inputs * BY_LAYER.get(self, 1)}

    model = Whole()
    model(ROWS)
    models.replicate(model, strategies[2])
    BY_LAYER[model] = 3
    with pytest.raises(
        ValueError, match=r"differ by up to .*, on rows.*: '.*' \(Whole"
    ):
        models.replicate(model, strategies[2])


@pytest.mark.parametrize(
    ("call", "how"),
    [
        (lambda x, n: tf.cast(x * n, tf.int32) + n, "in values of int32"),
        (
            lambda x, n: tf.strings.as_string(tf.ones_like(x, tf.int32) * n),
            "in values of string",
        ),
        (lambda x, n: tf.repeat(x, n, axis=1), r"in shape .*\(2, 4\), not \(2, 12\)"),
    ],
)
def test_finds_it_in_outputs_of_every_kind(call, how, strategies):
    layer = own_layer(lambda self, x: call(x, BY_LAYER.get(self, 1)))
    BY_LAYER[layer] = 3
    inputs = keras.Input((4,))
    model = keras.Model(inputs, [keras.layers.Dense(2)(inputs), layer(inputs)])
    with pytest.raises(ValueError, match=f"differ {how}.*first in layer 'own'"):
        models.replicate(model, strategies[2])


class Counting(keras.layers.Layer):
    """Keeps what it does in attributes, like code that is being debugged."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.calls, self.seen, self.cache, self.last = 0, [], {}, None

    def call(self, inputs):
        self.calls += 1
        self.seen.append(inputs)
        self.last = inputs
        if "mask" not in self.cache:
            self.cache["mask"] = tf.linalg.band_part(tf.ones((4, 4)), -1, 0)
        return inputs @ self.cache["mask"] * BY_LAYER.get(self, 1.0)


def test_puts_back_what_code_keeps_while_it_is_traced(strategies):
    model = model_of(Counting())
    new = models.replicate(model, strategies[2]).model
    for layer in (model.layers[0], new.layers[0]):
        vars(layer).update(calls=0, seen=[], cache={}, last=None)
        BY_LAYER[layer] = layer.calls
    BY_LAYER[model.layers[0]] = 3.0
    before = attributes_of(model), attributes_of(new)
    assert "differ by up to" in str(agreement.disagreement(model, new))
    assert (attributes_of(model), attributes_of(new)) == before


class Assigning(keras.layers.Layer):
    """Counts in a variable."""

    def build(self, shape):
        self.count = self.add_weight(shape=(), trainable=False, initializer="zeros")

    def call(self, inputs):
        self.count.assign_add(1.0)
        return inputs * self.count


class Later(keras.layers.Layer):
    """Has a layer that is first used in prediction."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.head = keras.layers.Dense(4)

    def call(self, inputs, training=None):
        return inputs if training is None or training else self.head(inputs)


class Losing(keras.layers.Layer):
    def call(self, inputs):
        self.add_loss(tf.reduce_sum(inputs))
        return inputs


def endless(self, x):
    """Never ends for generated rows, whose sums stay below 30."""
    return tf.while_loop(lambda y: tf.reduce_sum(y) < 30.0, lambda y: y + 0 * y, [x])[0]


def fussy(self, x):
    with tf.control_dependencies([tf.debugging.assert_greater(tf.reduce_max(x), 2.0)]):
        return tf.identity(x)


HEALTHY = {
    "arithmetic": lambda: own_layer(lambda self, x: x * 2.0),
    "a count in a variable": Assigning,
    "a count of the module": lambda: own_layer(lambda self, x: x * next(COUNT)),
    "a layer that is first used in prediction": Later,
    "losses": Losing,
    "random numbers of Python": lambda: own_layer(lambda self, x: x * random.random()),
    "a coin": lambda: own_layer(lambda self, x: x * random.randrange(2)),
    "random numbers of NumPy": lambda: own_layer(lambda self, x: x * np.random.rand()),
    "random numbers of TensorFlow": lambda: own_layer(
        lambda self, x: x + tf.random.normal(tf.shape(x))
    ),
    "random numbers of Keras": lambda: own_layer(
        lambda self, x: keras.random.dropout(x, 0.5)
    ),
    "time": lambda: own_layer(lambda self, x: x * (time.perf_counter_ns() % 997)),
    "Python": lambda: own_layer(
        lambda self, x: tf.ensure_shape(
            tf.numpy_function(lambda x: x * np.float32(next(COUNT)), [x], x.dtype),
            x.shape,
        )
    ),
    "names": lambda: own_layer(lambda self, x: x * hash(self.name)),
    "an endless loop": lambda: own_layer(endless),
    "a check": lambda: own_layer(fussy),
    "nothing but NaN": lambda: own_layer(lambda self, x: tf.math.log(x - 100.0)),
    "infinity": lambda: own_layer(lambda self, x: x / 0.0),
    "values that cancel out": lambda: own_layer(lambda self, x: x - x * 1.0000001),
    "an attention mask": lambda: own_layer(lambda self, x, mask=None: x),
}


@pytest.mark.filterwarnings("ignore:.*divide by zero")
@pytest.mark.parametrize("kind", HEALTHY)
def test_leaves_healthy_models_alone(kind, strategies):
    model = model_of(HEALTHY[kind]())
    new = models.replicate(model, strategies[3]).model
    values = [variable.numpy() for variable in model.variables]
    assert agreement.disagreement(model, new) is None
    assert len(new.variables) == len(model.variables) == len(values)
    for variable, value in zip(model.variables, values, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
