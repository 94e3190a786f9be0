"""Models from memory, put on every replica."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_mgpu_strategy import models

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
    expected = model(inputs, training=False)

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


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_every_replica_reads_its_own_copy(strategies, rows, run_replicas, num_replicas):
    strategy = strategies[num_replicas]
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


@pytest.mark.parametrize("library", LIBRARIES)
def test_rebuilds_models_of_another_strategy(library, strategies, rows, assert_same):
    with strategies[3].scope():
        model = sequential(LIBRARIES[library])
    replicated = models.replicate(model, strategies[2])
    assert models.strategy_of(model) is strategies[3]
    assert models.strategy_of(replicated.model) is strategies[2]
    assert_same(replicated.model(rows), model(rows))


def test_an_equal_strategy_is_another_one(strategies, rows, run_replicas, assert_same):
    equal = tf.distribute.MirroredStrategy(["CPU:0", "CPU:1"])
    with equal.scope():
        model = deferred(keras)
        model(rows)
    replicated = models.replicate(model, strategies[2])
    assert models.strategy_of(replicated.model) is strategies[2]
    for outputs in run_replicas(replicated, rows):
        assert_same(outputs, model(rows))


def test_no_strategy_where_variables_are_not_mirrored(strategies):
    model = sequential(keras)
    assert models.strategy_of(model) is None
    with strategies[2].scope():
        head = keras.layers.Dense(2)
        head.build((None, 3))
    assert models.strategy_of(keras.Sequential([*model.layers, head])) is None
    assert models.strategy_of(keras.Sequential([keras.layers.Flatten()])) is None


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


def test_declares_inputs_and_outputs(strategies):
    replicated = models.replicate(shared_and_nested(keras), strategies[2])
    assert replicated.input_spec == {"x": tf.TensorSpec((None, 4), name="x")}
    shapes = {key: shape.as_list() for key, shape in replicated.output_shapes.items()}
    assert shapes == {"sum": [None, 4], "inner": [None, 4]}
    two = [keras.Input((2,), name="a"), keras.Input((3,), 5, "int32", name="b")]
    joined = keras.layers.Concatenate()(two)
    spec = models.replicate(keras.Model(two, joined), strategies[2]).input_spec
    assert spec == [
        tf.TensorSpec((None, 2), tf.float32, name="a"),
        tf.TensorSpec((5, 3), tf.int32, name="b"),
    ]


def test_the_first_batch_of_a_sequential_model_is_no_declaration(strategies, rows):
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
    before = model.evaluate(rows, targets, verbose=0)[0]
    model.fit(rows, targets, epochs=3, verbose=0)
    assert model.evaluate(rows, targets, verbose=0)[0] < before


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


def test_runs_an_overridden_predict_step(strategies, rows, run_replicas, assert_same):
    class Doubling(keras.Model):
        def predict_step(self, data):
            return 2 * self(data[0], training=False)

    inputs = keras.Input((4,))
    with strategies[2].scope():
        model = Doubling(inputs, keras.layers.Dense(2)(inputs))
    for outputs in run_replicas(models.replicate(model, strategies[2]), rows):
        assert_same(outputs, 2 * model(rows))


def test_says_how_to_build_what_cannot_be_rebuilt(strategies, rows):
    model = FromLayers([keras.layers.Dense(2)])
    model(rows)
    with pytest.raises(ValueError, match="(?s)FromLayers.*cannot be rebuilt.*scope"):
        models.replicate(model, strategies[2])


def test_refuses_a_rebuilt_model_with_other_settings(strategies, rows):
    model = Forgetful(slope=0.25)
    model(rows)
    with pytest.raises(ValueError, match="leaky.*slope': 0.5.*not .*slope': 0.25"):
        models.replicate(model, strategies[2])


def test_refuses_a_rebuilt_model_with_other_layers(strategies, rows):
    model = Forgetful(extra=keras.layers.Dense(3))
    model(rows)
    with pytest.raises(ValueError, match="number of layers: 3 in the rebuilt model"):
        models.replicate(model, strategies[2])


@pytest.mark.parametrize("value", [keras.layers.Dense(2), "model.keras", len, None])
def test_refuses_what_is_no_keras_model(strategies, value):
    with pytest.raises(TypeError, match="Expected a Keras model, received .* of type"):
        models.replicate(value, strategies[2])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_refuses_stateful_models_on_several_replicas(
    library, bidirectional, strategies
):
    lib = LIBRARIES[library]
    layer = lib.layers.LSTM(2, stateful=True, name="memory")
    layer = lib.layers.Bidirectional(layer) if bidirectional else layer
    inputs = lib.Input(batch_shape=(2, 4, 1))
    inner = lib.Model(inputs, layer(inputs))
    model = lib.Sequential([lib.Input(batch_shape=(2, 4, 1)), inner])
    with pytest.raises(ValueError, match="stateful recurrent layers .*memory.*2 repl"):
        models.replicate(model, strategies[2])


def test_allows_a_stateful_model_on_one_replica(strategies):
    layer = keras.layers.LSTM(2, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, 4, 1)), layer])
    spec = models.replicate(model, strategies[1]).input_spec
    assert spec.shape.as_list() == [2, 4, 1]


def test_refuses_another_backend():
    # The NumPy backend of recent versions of Keras borrows functions of JAX.
    pytest.importorskip("jax")
    script = (
        "import keras, tensorflow as tf\n"
        "from keras_mgpu_strategy import models\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "models.replicate(model, tf.distribute.MirroredStrategy(['CPU:0']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "backend 'numpy', expected 'tensorflow'" in done.stderr
    assert "KERAS_BACKEND=tensorflow" in done.stderr
