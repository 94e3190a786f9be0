"""`predict_proba` for any Keras model: what it keeps between calls."""

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu

ROWS = np.random.default_rng(0).random((37, 5), dtype=np.float32)


def classifier():
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(3, activation="softmax")]
    )


class Subclassed(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3, activation="softmax")

    def call(self, inputs):
        return self.dense(inputs)


def assert_same(results, model):
    expected = model.predict(ROWS, verbose=0)
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-6)


def kept_by(model):
    return vars(model)["_keras_mgpu_strategy_predictor"][0]


def test_each_call_uses_the_current_weights(strategies):
    model = classifier()
    with strategies[2].scope():
        mgpu.predict_proba(model, ROWS, verbose=0)
        model.set_weights([w + 1 for w in model.get_weights()])
        results = mgpu.predict_proba(model, ROWS, batch_size=7, verbose=0)
    assert_same(results, model)


@pytest.mark.parametrize("in_scope", [False, True])
def test_added_layers_are_noticed(in_scope, strategies):
    outside = classifier()
    with strategies[2].scope():
        model = classifier() if in_scope else outside
        mgpu.predict_proba(model, ROWS, verbose=0)
        model.add(keras.layers.Rescaling(0.5))
        results = mgpu.predict_proba(model, ROWS, verbose=0)
    assert_same(results, model)


def test_new_variables_of_a_layer_are_noticed(strategies):
    model = keras.Sequential([keras.Input((5,)), keras.layers.Dense(3)])
    with strategies[2].scope():
        mgpu.predict_proba(model, ROWS, from_logits=True, verbose=0)
    layer = model.layers[-1]
    layer.enable_lora(2)
    layer.lora_kernel_b.assign(np.ones((2, 3)))
    with strategies[2].scope():
        results = mgpu.predict_proba(model, ROWS, from_logits=True, verbose=0)
    np.testing.assert_allclose(results, keras.ops.softmax(model(ROWS)), rtol=1e-5)


@pytest.mark.parametrize("make", [classifier, Subclassed])
def test_one_predictor_serves_all_calls(make, strategies):
    model = make()
    with strategies[2].scope():
        for batch_size in (7, 9):
            mgpu.predict_proba(model, ROWS, batch_size, verbose=0)
            first = kept_by(model)
        with pytest.raises(ValueError, match="verbose=7"):
            mgpu.predict_proba(model, ROWS, verbose=7)
        mgpu.predict_proba(model, ROWS, verbose=0)
    assert kept_by(model) is first


@pytest.mark.parametrize("library", ["keras", "tf_keras"])
def test_settings_that_changed_count_once_the_model_is_compiled(library):
    lib = pytest.importorskip(library)
    inputs = lib.Input((5,))
    model = lib.Model(inputs, lib.layers.Dense(3, activation="sigmoid")(inputs))
    mgpu.predict_proba(model, ROWS, verbose=0)
    # Two functions with the same name: their configurations are equal.
    for activation in ("softmax", lambda x: x * 0 + 0.25, lambda x: x * 0 + 0.75):
        model.layers[-1].activation = lib.activations.get(activation)
        model.compile()
        results = mgpu.predict_proba(model, ROWS, verbose=0)
        assert_same(results, model)


def test_a_step_that_was_set_counts_once_it_is_compiled(strategies):
    with strategies[2].scope():
        model = classifier()
        mgpu.predict_proba(model, ROWS, verbose=0)
        model.predict_step = lambda data: model(data, training=False) / 2
        model.compile()
        results = mgpu.predict_proba(model, ROWS, verbose=0)
        assert_same(results, model)


def test_parts_that_were_frozen_keep_their_own_weights(strategies):
    tf_keras = pytest.importorskip("tf_keras")

    class Pair(tf_keras.layers.Layer):
        """The order of its variables depends on the `trainable` flags of its parts."""

        def __init__(self, **kwargs):
            super().__init__(**kwargs)
            self.first = tf_keras.layers.Dense(5, use_bias=False)
            self.second = tf_keras.layers.Dense(5, use_bias=False)

        def call(self, inputs):
            return self.second(self.first(inputs))

    model = tf_keras.Sequential(
        [tf_keras.Input((5,)), Pair(), tf_keras.layers.Softmax()]
    )
    with strategies[2].scope():
        mgpu.predict_proba(model, ROWS, verbose=0)
        model.layers[0].first.trainable = False
        results = mgpu.predict_proba(model, ROWS, verbose=0)
    assert_same(results, model)
    with strategies[3].scope():
        assert_same(mgpu.Predictor(model).predict(ROWS, verbose=0), model)


def test_several_models_are_for_a_predictor():
    with pytest.raises(TypeError, match="a list of 2, expected one .*a Predictor of"):
        mgpu.predict_proba([classifier(), classifier()], ROWS)
