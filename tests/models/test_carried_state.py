"""State of layers outside configurations and Keras' variables, in rebuilt models."""

import dataclasses
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from architectures import LIBRARIES

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models

ROWS = np.arange(12, dtype=np.float32).reshape(3, 4)


class Holder(keras.layers.Layer):
    """Applies what an attribute holds, by `apply` of a class derived from this one."""

    apply = staticmethod(lambda held, inputs: inputs)

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.held = None
        self.make()

    def make(self):
        """What the constructor makes."""

    def call(self, inputs):
        return self.apply(self.held, inputs)


def holding(held, apply, base=Holder):
    """A layer whose attribute is set after it was made."""
    layer = type("Holding", (base,), {"apply": staticmethod(apply)})()
    if held is not None:
        layer.held = held
    return layer


@dataclasses.dataclass
class Statistics:
    mean: np.ndarray
    others: dict


class Box:
    def __init__(self, **values):
        vars(self).update(values)


def table(values):
    keys = tf.constant(["a", "b"])
    initializer = tf.lookup.KeyValueTensorInitializer(keys, tf.constant(values))
    return tf.lookup.StaticHashTable(initializer, -1.0)


def scale(factor, inputs):
    return inputs * factor


PLAIN = {
    "number": (5.0, scale),
    "array": (np.arange(4, dtype="f4"), scale),
    "tensor": (tf.constant([1.0, 2.0, 3.0, 4.0]), scale),
    "list of arrays": (
        [np.ones(4, "f4"), np.arange(4, dtype="f4")],
        lambda h, x: x * h[1],
    ),
    "dict of arrays": (
        {"a": {"b": np.arange(4, dtype="f4")}},
        lambda h, x: x * h["a"]["b"],
    ),
    "object": (
        Statistics(np.arange(4, dtype="f4"), {"deviation": 3.0}),
        lambda h, x: (x - h.mean) / h.others["deviation"],
    ),
    "table": (table([2.0, 3.0]), lambda h, x: x * h.lookup(tf.constant("b"))),
    "function": (functools.partial(scale, 7.0), lambda h, x: h(x)),
    "variable": (tf.Variable(3.0), scale),
    "variable in an object": (
        Box(a=[tf.Variable(3.0)], b=2.0),
        lambda h, x: x * h.a[0] * h.b,
    ),
    "variable of Keras in an object": (
        Box(a=keras.Variable(3.0)),
        lambda h, x: x * h.a,
    ),
    "layer without variables in an object": (
        Box(a=keras.layers.Rescaling(3.0)),
        lambda h, x: h.a(x),
    ),
}


@pytest.fixture
def predicted(strategies):
    """Results of a rebuilt model, on two replicas."""

    def predict(model, rows=ROWS):
        with strategies[2].scope():
            predictor = mgpu.Predictor(model)
        assert predictor.model is not model
        return predictor.predict(rows, 2, verbose=0)

    return predict


def assert_same(results, model):
    expected = model.predict(ROWS, verbose=0)
    # Keras runs another batch size, so the last bits of a sum may differ.
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-5)


def model_of(layer, lib=keras):
    return lib.Sequential([lib.Input((4,)), layer, lib.layers.Dense(2)])


@pytest.mark.parametrize("kind", PLAIN)
def test_attributes_that_were_set_later(kind, predicted):
    held, apply = PLAIN[kind]
    model = model_of(holding(held, apply))
    assert_same(predicted(model), model)


class WithVariables(Holder):
    def make(self):
        self.held = {"factor": tf.Variable(1.0), "offsets": [tf.Variable([0.0] * 4)]}


def test_variables_that_the_constructor_makes_get_their_values(strategies, devices_of):
    layer = holding(None, lambda h, x: x * h["factor"] + h["offsets"][0], WithVariables)
    layer.held["factor"].assign(7.0)
    layer.held["offsets"][0].assign([1.0, 2.0, 3.0, 4.0])
    model = model_of(layer)
    replicated = models.replicate(model, strategies[2])
    assert_same(replicated.call(ROWS), model)
    copy = replicated.model.layers[0]
    assert devices_of(copy.held["factor"], strategies[2]) == list(
        strategies[2].extended.worker_devices
    )
    layer.held["factor"].assign(8.0)
    assert copy.held["factor"].numpy() == 7.0


def test_variables_that_were_made_later_live_on_every_device(strategies, devices_of):
    model = model_of(holding(tf.Variable(3.0), scale))
    replicated = models.replicate(model, strategies[2])
    held = replicated.model.layers[0].held
    assert devices_of(held, strategies[2]) == list(
        strategies[2].extended.worker_devices
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_statistics_of_a_custom_adapt(library, predicted):
    lib = LIBRARIES[library]

    class Center(lib.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.mean = None

        def adapt(self, rows):
            self.mean = rows.mean(axis=0)

        def call(self, inputs):
            return inputs if self.mean is None else inputs - self.mean

    layer = Center()
    layer.adapt(np.full((10, 4), 100.0, "f4"))
    model = model_of(layer, lib)
    assert_same(predicted(model), model)


class Scaled(Holder):
    apply = staticmethod(scale)


class Nested(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.inner = Scaled()
        self.inner.held = 2.0
        self.scaled = [self.inner, keras.layers.Dense(4)]
        self.apply = lambda x: self.scaled[1](self.inner(x)) * self.factor
        self.method = self.twice
        self.factor = 1.0

    def build(self, shape):
        self.scaled[1].build(shape)

    def twice(self, x):
        return 2 * self.apply(x)

    def call(self, inputs):
        return self.method(inputs)


def test_nested_layers_and_functions_that_refer_to_them(predicted):
    layer = Nested()
    layer.factor, layer.inner.held = 3.0, np.arange(4, dtype="f4")
    model = model_of(layer)
    assert_same(predicted(model), model)


def test_an_attribute_that_was_set_to_another_layer(predicted):
    layer = Nested()
    layer.method = layer.inner.call
    model = model_of(layer)
    layer.method = layer.scaled[1].call
    assert_same(predicted(model), model)


class Generating(Holder):
    def make(self):
        self.held = tf.random.Generator.from_seed(1)


def test_the_state_of_a_generator(strategies):
    layer = Generating()
    layer.held.reset_from_seed(5)
    copy = models.replicate(model_of(layer), strategies[2]).model.layers[0]
    np.testing.assert_array_equal(copy.held.state.numpy(), layer.held.state.numpy())


class Hiding(Holder):
    def make(self):
        self.held = Box(layer=keras.layers.Dense(4))


@pytest.mark.parametrize(
    ("held", "message"),
    [
        (
            lambda layer: Box(layer=keras.layers.Dense(4)),
            "the layer .*, which Keras does not track",
        ),
        (lambda layer: functools.partial(layer.compute_mask, 3), "compute_mask"),
        (lambda layer: lambda x: layer.apply(1.0, x), "a function of layers"),
    ],
)
def test_refuses_what_it_cannot_carry_over(held, message, strategies):
    layer = Holder(name="holder")
    layer.held = held(layer)
    if isinstance(layer.held, Box):
        layer.held.layer.build((None, 4))
    with pytest.raises(
        ValueError, match=f"attribute 'held' of layer 'holder'.*{message}"
    ):
        models.replicate(model_of(layer), strategies[2])


def test_refuses_layers_that_keras_does_not_track(strategies):
    layer = holding(None, lambda h, x: h.layer(x), Hiding)
    layer.held.layer.build((None, 4))
    with pytest.raises(ValueError, match="which Keras does not track"):
        models.replicate(model_of(layer), strategies[2])


def test_what_the_code_of_a_layer_does_not_read_does_not_matter(predicted):
    layer = Holder()
    model = model_of(layer)
    layer.trainer = Box(model=model)
    assert_same(predicted(model), model)


def test_dtypes_of_another_precision_stay(strategies):
    class Casting(keras.layers.Layer):
        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.wanted = self.compute_dtype
            self.factor = 1.0

        def call(self, inputs):
            return tf.cast(inputs, self.wanted) * self.factor

    layer = Casting()
    layer.factor = 3.0
    model = keras.Sequential([keras.Input((4,)), layer])
    copy = models.replicate(model, strategies[2], "bfloat16").model
    assert copy.layers[0].wanted == "bfloat16"
    assert copy.layers[0].factor == 3.0


def test_state_is_part_of_the_digest(strategies):
    def digest_of(value, num_replicas=2):
        layer = holding(None, lambda h, x: x * h["factor"], WithVariables)
        layer.held["factor"].assign(value)
        layer.extra = {"mean": np.full(3, value)}
        model = keras.Sequential([keras.Input((4,)), layer])
        return models.digest(models.replicate(model, strategies[num_replicas]))

    assert digest_of(1.0) == digest_of(1.0, 3) != digest_of(2.0)


@pytest.mark.parametrize("in_scope", [False, True])
def test_predict_proba_notices_attributes_that_change(in_scope, strategies):
    outside = holding(1.0, scale)
    with strategies[2].scope():
        layer = holding(1.0, scale) if in_scope else outside
        model = keras.Sequential([keras.Input((4,)), layer])
        for factor in (0.01, np.full(4, 0.02, "f4")):
            layer.held = factor
            results = mgpu.predict_proba(model, ROWS, verbose=0)
            np.testing.assert_allclose(results, ROWS * factor)
        layer.held *= 2
        results = mgpu.predict_proba(model, ROWS, verbose=0)
        np.testing.assert_allclose(results, ROWS * 0.04)


def test_layers_of_tf_keras(predicted):
    class Scaled(tf_keras.layers.Layer):
        factor = 1.0

        def call(self, inputs):
            return inputs * self.factor

    layer = Scaled()
    layer.factor = 5.0
    model = model_of(layer, tf_keras)
    assert_same(predicted(model), model)
