"""Models from elsewhere, built again on every replica."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from architectures import (
    ARCHITECTURES,
    LIBRARIES,
    Subclassed,
    Tokens,
    deferred,
    sequential,
    shared_and_nested,
)

from keras_mgpu_strategy import models
from keras_mgpu_strategy.models import stand_ins, variables


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("make", ARCHITECTURES)
def test_rebuilds_models_from_outside_the_scope(
    make, library, strategies, rows, run_replicas, assert_same, devices_of
):
    strategy = strategies[2]
    model = make(LIBRARIES[library])
    inputs = {"x": rows} if make is shared_and_nested else rows
    if make is deferred:
        model(rows)
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(2).random(weight.shape) + 0.1)
    # In a graph, oneDNN fuses layers and so rounds bfloat16 less often.
    expected = tf.function(model)(inputs, training=False)

    replicated = models.replicate(model, strategy)

    assert replicated.model is not model
    assert type(replicated.model) is type(model)
    assert len(replicated.model.weights) == len(model.weights)
    for variable in replicated.model.variables:
        assert devices_of(variable, strategy) == list(strategy.extended.worker_devices)
    for outputs in run_replicas(replicated, inputs):
        assert_same(outputs, expected)
    flags = [layer.trainable for layer in model.layers]
    assert [layer.trainable for layer in replicated.model.layers] == flags


@pytest.mark.parametrize("library", LIBRARIES)
def test_rebuilds_models_of_another_strategy(library, strategies, rows, assert_same):
    with strategies[3].scope():
        model = sequential(LIBRARIES[library])
    replicated = models.replicate(model, strategies[2])
    assert models.strategy_of(model) is strategies[3]
    assert models.strategy_of(replicated.model) is strategies[2]
    assert_same(replicated.model(rows), model(rows))


def test_rebuilds_a_model_with_a_part_from_the_scope(strategies, rows, assert_same):
    with strategies[2].scope():
        head = keras.layers.Dense(2)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3), head])
    assert models.strategy_of(model) is None
    replicated = models.replicate(model, strategies[2])
    assert models.strategy_of(replicated.model) is strategies[2]
    assert_same(replicated.model(rows), model(rows))


def test_rebuilds_subclassed_models(strategies, rows, run_replicas, assert_same):
    model = Subclassed()
    model(rows)
    model.scale.trainable = False
    model.normalize.moving_mean.assign([1.0, 2.0, 3.0])
    replicated = models.replicate(model, strategies[2])
    assert type(replicated.model) is Subclassed
    assert not replicated.model.scale.trainable
    for outputs in run_replicas(replicated, rows):
        assert_same(outputs, model(rows, training=False))


def test_rebuilds_models_that_keras_cannot_trace(strategies, run_replicas, assert_same):
    model = Tokens()
    inputs = {
        "word": tf.constant([["a"], ["b"], ["c"]]),
        "weight": tf.constant([[[1.0]], [[2.0]], [[3.0]]]),
    }
    model(inputs)
    for outputs in run_replicas(models.replicate(model, strategies[2]), inputs):
        assert_same(outputs, model(inputs))


def test_rebuilds_subclassed_models_inside_others(strategies, rows, assert_same):
    inputs = keras.Input((4,))
    model = keras.Model(inputs, Subclassed()(keras.layers.Dense(4)(inputs)))
    replicated = models.replicate(model, strategies[2])
    assert_same(replicated.model(rows), model(rows))


@pytest.mark.parametrize("library", LIBRARIES)
def test_keeps_adapted_vocabularies(library, strategies, run_replicas, assert_same):
    lib = LIBRARIES[library]
    lookup = lib.layers.StringLookup()
    lookup.adapt(["b", "b", "a"])
    model = lib.Sequential(
        [lib.Input((1,), dtype="string"), lookup, lib.layers.Embedding(3, 2)]
    )
    words = tf.constant([["a"], ["b"], ["else"]])
    replicated = models.replicate(model, strategies[2])
    assert replicated.input_spec.dtype == tf.string
    for outputs in run_replicas(replicated, words):
        assert_same(outputs, model(words))


def test_copies_random_seeds(strategies):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dropout(0.5, seed=7)])
    model(np.ones((1, 4)), training=True)
    (state,) = model.variables
    (copied,) = models.replicate(model, strategies[2]).model.variables
    np.testing.assert_array_equal(copied.numpy(), state.numpy())


class DrawsTwice(keras.layers.Layer):
    """Draws from a seed of Keras and from a generator of TensorFlow."""

    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seed = keras.random.SeedGenerator(3)
        self.generator = tf.random.Generator.from_seed(5)

    def call(self, inputs):
        noise = keras.random.normal(tf.shape(inputs), seed=self.seed)
        return inputs + noise + self.generator.normal(tf.shape(inputs))


def test_seeds_are_found_by_their_names_in_a_copy(strategies):
    model = keras.Sequential([keras.Input((2,)), DrawsTwice()])
    replicated = models.replicate(model, strategies[2])
    found = map(variables.value_of, replicated.all_variables())
    assert [stand_ins.is_seed(variable) for variable in found] == [True, True]


def test_a_copy_builds_itself(strategies):
    class Late(keras.layers.Layer):
        def build(self, input_shape):
            self.dense = keras.layers.Dense(2)
            self.dense.build(input_shape)

        def call(self, inputs):
            return self.dense(inputs)

    outside = keras.Sequential([Late(), keras.layers.Dense(3)])
    outside.layers[1].build((None, 2))
    with strategies[2].scope():
        new = models.replicate(outside, strategies[2]).model
        new.build((None, 4))
    assert not outside.layers[0].built
    assert models.strategy_of(new) is strategies[2]


def test_rebuilds_bags_of_words(strategies, assert_same):
    vectorize = keras.layers.TextVectorization(output_mode="tf_idf")
    vectorize.adapt(["a a b", "b c", "c d"])
    model = keras.Sequential([keras.Input((), dtype="string"), vectorize])
    model.add(keras.layers.Dense(2))
    text = tf.constant(["a b d", "c"])
    assert_same(models.replicate(model, strategies[2]).call(text), model(text))
