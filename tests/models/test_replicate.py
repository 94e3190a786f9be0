"""Models from memory, used as they are or built on every replica."""

import keras
import pytest
import tensorflow as tf
from architectures import (
    LIBRARIES,
    FromLayers,
    Scale,
    deferred,
    sequential,
    shared_and_nested,
)

from keras_mgpu_strategy import models
from keras_mgpu_strategy.models.variables import lives_on
from keras_mgpu_strategy.types import DeclaredInput


def test_every_replica_reads_its_own_copy(strategies, rows, run_replicas):
    strategy = strategies[3]
    replicated = models.replicate(sequential(keras), strategy)
    for variable in replicated.model.layers[-1].weights:
        copies = strategy.experimental_local_results(variable.value)
        copies[-1].assign(tf.zeros_like(copies[-1]))
    *others, last = run_replicas(replicated, rows)
    assert not last.any()
    assert all(other.any() for other in others)


def test_uses_a_model_of_the_scope_as_it_is(strategies, rows):
    strategy = strategies[2]
    with strategy.scope():
        model = sequential(keras)
    replicated = models.replicate(model, strategy)
    assert replicated.model is model
    assert models.strategy_of(model) is strategy
    part = keras.Model(model.inputs, model.layers[0].output)
    assert models.replicate(part, strategy).model is part


def test_an_equal_strategy_is_another_one(strategies, rows, run_replicas, assert_same):
    equal = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with equal.scope():
        model = deferred(keras)
        model(rows)
    replicated = models.replicate(model, strategies[2])
    assert models.strategy_of(replicated.model) is strategies[2]
    for outputs in run_replicas(replicated, rows):
        assert_same(outputs, model(rows))


def test_no_strategy_if_variables_are_not_mirrored(strategies):
    model = sequential(keras)
    assert models.strategy_of(model) is None
    with strategies[2].scope():
        head = keras.layers.Dense(2)
        head.build((None, 3))
    assert models.strategy_of(keras.Sequential([*model.layers, head])) is None
    assert models.strategy_of(keras.Sequential([keras.layers.Flatten()])) is None


def test_declares_inputs_and_outputs(strategies):
    replicated = models.replicate(shared_and_nested(keras), strategies[2])
    assert replicated.input_spec == {"x": DeclaredInput((None, 4), tf.float32, "x")}
    shapes = {key: shape.as_list() for key, shape in replicated.output_shapes.items()}
    assert shapes == {"sum": [None, 4], "inner": [None, 4]}
    two = [keras.Input((2,), name="a"), keras.Input((3,), 5, "int32", name="b")]
    joined = keras.layers.Concatenate()(two)
    spec = models.replicate(keras.Model(two, joined), strategies[2]).input_spec
    assert spec == [
        DeclaredInput((None, 2), tf.float32, "a"),
        DeclaredInput((5, 3), tf.int32, "b"),
    ]


def test_the_first_batch_of_a_sequential_model_is_not_a_declaration(strategies, rows):
    model = deferred(keras)
    model(rows)
    replicated = models.replicate(model, strategies[2])
    assert replicated.input_spec.shape.as_list() == [None, 4]
    assert replicated.output_shapes.as_list() == [None, 3]


@pytest.mark.parametrize("library", LIBRARIES)
def test_builds_unbuilt_models_on_every_replica(
    library, strategies, rows, targets, run_replicas, devices_of
):
    lib, strategy = LIBRARIES[library], strategies[2]
    model = deferred(lib)
    model.compile("sgd", "mse", metrics=["mae"])
    replicated = models.replicate(model, strategy)
    assert replicated.model is model
    assert not replicated.is_built
    assert replicated.input_spec is None
    assert replicated.output_shapes is None
    models.build(replicated, rows[:1])
    kernel = model.weights[0]
    models.build(replicated, rows[:1])
    assert replicated.is_built
    assert model.weights[0] is kernel
    assert devices_of(kernel, strategy) == list(strategy.extended.worker_devices)
    assert len(run_replicas(replicated, rows)) == 2
    assert model.distribute_strategy is strategy
    before = model.get_weights()[0]
    model.fit(rows, targets, verbose=0)
    assert (model.get_weights()[0] != before).any()


def test_builds_what_cannot_be_rebuilt(strategies, rows):
    model = FromLayers([keras.layers.Dense(2), Scale(3)])
    replicated = models.replicate(model, strategies[2])
    models.build(replicated, rows[:2])
    assert models.strategy_of(model) is strategies[2]


def test_building_finds_variables_that_are_not_mirrored(strategies, rows):
    model = FromLayers([keras.layers.Dense(2)])
    replicated = models.replicate(model, strategies[2])
    model.parts[0].build((None, 4))
    with pytest.raises(ValueError, match=r"kernel' has copies on .*CPU:0.*expected"):
        models.build(replicated, rows[:2])


@pytest.mark.parametrize(
    ("dtype", "asked", "expected"),
    [
        (tf.float32, "CPU:1", True),
        (tf.float32, "CPU:0", False),
        (tf.float32, "GPU:0", False),
        # Accelerators hold no variables of these dtypes.
        (tf.int32, "CPU:1", True),
        (tf.int32, "CPU:0", False),
        (tf.int32, "GPU:0", True),
        (tf.string, "GPU:1", True),
    ],
)
def test_where_a_variable_lives(dtype, asked, expected):
    value = tf.zeros((), tf.int32) if dtype is tf.int32 else tf.constant("0")
    value = tf.zeros(()) if dtype is tf.float32 else value
    with tf.device("CPU:1"):
        variable = tf.Variable(value)
    device = f"/job:localhost/replica:0/task:0/device:{asked}"
    assert lives_on(variable, device) is expected


def test_mirrors_integer_state(strategies, rows, run_replicas, assert_same):
    class Counted(keras.layers.Layer):
        def build(self, input_shape):
            self.count = self.add_weight(
                shape=(), dtype="int32", trainable=False, initializer="zeros"
            )

        def call(self, inputs):
            return inputs * keras.ops.cast(self.count, inputs.dtype)

    model = keras.Sequential([keras.Input((4,)), Counted()])
    model.layers[0].count.assign(7)
    for outputs in run_replicas(models.replicate(model, strategies[2]), rows):
        assert_same(outputs, rows * 7)
