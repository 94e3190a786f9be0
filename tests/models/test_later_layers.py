"""Layers that a constructor does not make, or whose configuration Keras cannot make."""

import inspect

import keras
import numpy as np
import pytest
import tensorflow as tf
from architectures import LIBRARIES, Forgetful

from keras_mgpu_strategy import models

pytestmark = pytest.mark.filterwarnings("ignore:`build.*was called on layer")

ROWS = np.arange(20, dtype=np.float32).reshape(5, 4)


class Pad(keras.layers.Layer):
    """Has no configuration if its dtype is a policy."""

    def call(self, inputs):
        return keras.ops.pad(inputs, [[0, 0], [1, 1]])


class Net(keras.Model):
    """Passes its dtype to its layers, as models of KerasHub do."""

    def __init__(self, units, dtype=None, **kwargs):
        if isinstance(dtype, dict):
            dtype = keras.saving.deserialize_keras_object(dtype)
        super().__init__(dtype=dtype, **kwargs)
        self.units = units
        self.pad = Pad(dtype=dtype)
        self.dense = keras.layers.Dense(units, dtype=dtype)

    def call(self, inputs):
        return self.dense(self.pad(inputs))

    def get_config(self):
        dtype = keras.saving.serialize_keras_object(self.dtype_policy)
        return {**super().get_config(), "units": self.units, "dtype": dtype}


class Preprocessor(keras.layers.Layer):
    """Makes its own layer when it is built, which may be never."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.packer = None

    def build(self, shape):
        self.packer = keras.layers.Rescaling(0.5)

    def call(self, inputs):
        return self.packer(inputs)


class Task(keras.Model):
    def __init__(self, preprocessor=None, **kwargs):
        super().__init__(**kwargs)
        self.preprocessor = preprocessor or Preprocessor()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        return self.dense(inputs)


@pytest.fixture
def assert_rebuilt(strategies, run_replicas, assert_same):
    def check(model, rows=ROWS):
        replicated = models.replicate(model, strategies[2])
        assert replicated.model is not model
        for outputs in run_replicas(replicated, rows):
            assert_same(outputs, model.predict(rows, verbose=0))
        return replicated.model

    return check


def test_a_layer_without_a_configuration_of_its_own(assert_rebuilt, strategies):
    model = Net(3)
    model(ROWS)
    copy = assert_rebuilt(model)
    digests = {models.digest(models.replicate(m, strategies[2])) for m in (model, copy)}
    assert len(digests) == 1


def test_a_layer_that_is_made_when_another_is_first_used(assert_rebuilt):
    task = Task()
    task(ROWS)
    assert_rebuilt(task)
    task.preprocessor(ROWS)
    copy = assert_rebuilt(task)
    assert copy.preprocessor.packer.scale == 0.5
    assert copy.preprocessor.packer is not task.preprocessor.packer


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_a_layer_as_an_attribute_of_a_model(kind, library, assert_rebuilt):
    lib = LIBRARIES[library]
    inputs, dense = lib.Input((4,)), lib.layers.Dense(2)
    if kind == "functional":
        model = lib.Model(inputs, dense(inputs))
    else:
        model = lib.Sequential([inputs, dense])
    model.postprocess = lib.layers.Softmax()
    model.encoder = dense
    model.heads = {"a": [lib.layers.Dense(3)]}
    model.heads["a"][0].build((None, 2))
    copy = assert_rebuilt(model)
    assert isinstance(copy.postprocess, lib.layers.Softmax)
    assert copy.encoder in copy.layers
    np.testing.assert_array_equal(
        copy.heads["a"][0].get_weights()[0], model.heads["a"][0].get_weights()[0]
    )


def test_a_layer_that_the_configuration_leaves_out(assert_rebuilt):
    model = Forgetful(extra=keras.layers.Dense(3))
    model(ROWS)
    copy = assert_rebuilt(model)
    assert copy.extra is not model.extra


def test_an_attribute_that_cannot_be_configured_is_shared(assert_rebuilt):
    class Odd(keras.layers.Layer):
        def __init__(self, value):
            super().__init__()
            self.value = value

        def call(self, inputs):
            return inputs

    inputs = keras.Input((4,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.odd = Odd(object())
    assert assert_rebuilt(model).odd is model.odd


needs_optional = pytest.mark.skipif(
    "optional" not in inspect.signature(keras.Input).parameters,
    reason="this version of Keras has no optional inputs",
)


@needs_optional
@pytest.mark.parametrize("nested", [False, True])
def test_inputs_keep_what_they_are(nested, strategies):
    left = keras.Input((3,), name="left", optional=True)
    right = keras.Input((4,), sparse=True, name="right", dtype="float64")
    outputs = {
        "left": keras.layers.Dense(2)(left),
        "right": keras.layers.Dense(2)(right),
    }
    model = keras.Model({"left": left, "right": right}, outputs)
    if nested:
        model = keras.Model(model.input, model(model.input))
    copy = models.replicate(model, strategies[2]).model
    for before, after in zip(model.inputs, copy.inputs, strict=True):
        layers = [
            next(x for x in m.layers if getattr(x, "output", None) is tensor)
            for m, tensor in ((model, before), (copy, after))
        ]
        assert layers[0].get_config() == layers[1].get_config()


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("kind", ["functional", "sequential"])
def test_sparse_inputs_stay_sparse(kind, library, strategies):
    lib = LIBRARIES[library]
    inputs = lib.Input((4,), sparse=True, name="words")
    layers = [lib.layers.Dense(2)]
    if kind == "functional":
        model = lib.Model(inputs, layers[0](inputs))
    else:
        model = lib.Sequential([lib.layers.InputLayer((4,), sparse=True), *layers])
    copy = models.replicate(model, strategies[2]).model
    (tensor,) = copy.inputs
    is_sparse = getattr(tensor, "sparse", None)
    if is_sparse is None:  # tf_keras
        is_sparse = isinstance(tensor.type_spec, tf.SparseTensorSpec)
    assert is_sparse
