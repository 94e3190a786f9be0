"""Models rebuilt in another floating-point precision."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from architectures import LIBRARIES, FromLayers, mixed

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models

PRECISIONS = ["float32", "bfloat16", "float16"]
TOLERANCES = {"float32": 3e-6, "bfloat16": 3e-2, "float16": 4e-3}
"""Largest error as a share of the largest result: 8 units of the dtype's rounding."""
FACTOR = np.float32([1.0, 2.0, 3.0, 4.0])


def dense(lib):
    layers = lib.layers
    hidden = layers.Dense(16, activation="relu")
    return lib.Sequential([lib.Input((12,)), hidden, layers.Dense(3)])


def convolution(lib):
    layers = lib.layers
    return lib.Sequential(
        [
            lib.Input((12,)),
            layers.Reshape((12, 1)),
            layers.Conv1D(4, 3, padding="same"),
            layers.BatchNormalization(),
            layers.ReLU(),
            layers.Flatten(),
            layers.Dense(3),
        ]
    )


def recurrent(lib):
    layers = lib.layers
    inner = lib.Sequential([lib.Input((3,)), layers.Dense(4)])
    return lib.Sequential(
        [
            lib.Input((12,)),
            layers.Reshape((4, 3)),
            layers.TimeDistributed(inner),
            layers.Bidirectional(layers.LSTM(4, return_sequences=True)),
            layers.RNN(layers.GRUCell(3)),
        ]
    )


def attention(lib):
    layers = lib.layers
    inputs = lib.Input((12,))
    x = layers.Reshape((4, 3))(inputs)
    x = layers.LayerNormalization()(layers.MultiHeadAttention(2, 4)(x, x))
    return lib.Model(inputs, layers.GlobalAveragePooling1D()(x))


def nested(lib):
    """A model in a model, a shared layer, a dict of results, one of integers."""
    layers = lib.layers
    shared = layers.Dense(12, activation="tanh")
    inner = dense(lib)
    inputs = lib.Input((12,))
    outputs = {"a": inner(shared(inputs)), "b": shared(shared(inputs))}
    bins = layers.Discretization([0.25, 0.5, 0.75])
    return lib.Model(inputs, {**outputs, "c": bins(inputs)})


@pytest.fixture(scope="module")
def table():
    """Eleven rows of twelve features."""
    return np.random.default_rng(0).random((11, 12), dtype=np.float32)


def randomize(model):
    random = np.random.default_rng(2)
    for weight in model.weights:
        if "float" in tf.as_dtype(weight.dtype).name:
            lowest = 0.1 if "variance" in weight.name else -0.5
            weight.assign(random.uniform(lowest, 0.5, weight.shape))
    return model


def largest_error(actual, expected):
    """The largest error of the floats; integers must be equal."""
    errors = [0.0]
    for got, want in zip(
        tf.nest.flatten(actual), tf.nest.flatten(expected), strict=True
    ):
        assert got.dtype == want.dtype
        assert got.shape == want.shape
        if want.dtype.kind != "f":
            np.testing.assert_array_equal(got, want)
            continue
        errors.append(np.abs(got - want).max() / np.abs(want).max())
    return max(errors)


def float_dtypes(model):
    dtypes = {tf.as_dtype(variable.dtype) for variable in model.variables}
    return {dtype.name for dtype in dtypes if dtype.is_floating}


@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("make", [dense, convolution, recurrent, attention, nested])
def test_results_are_float32_and_close(make, precision, strategies, table):
    strategy, model = strategies[2], randomize(make(keras))
    before = model.get_weights()
    with strategy.scope():
        predictor = mgpu.Predictor(model, precision=precision)
    error = largest_error(
        predictor.predict(table, 4, verbose=0), model.predict(table, verbose=0)
    )
    assert error < TOLERANCES[precision]
    assert (error > 1e-5) == (precision != "float32")
    assert float_dtypes(predictor.model) == {precision}
    assert models.strategy_of(predictor.model) is strategy
    for value, kept in zip(before, model.get_weights(), strict=True):
        np.testing.assert_array_equal(value, kept)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
@pytest.mark.parametrize("make", [dense, convolution, recurrent, attention, nested])
def test_tf_keras(make, precision, strategies, table):
    model = randomize(make(tf_keras))
    replicated = models.replicate(model, strategies[1], precision)
    results = tf.nest.map_structure(lambda x: x.numpy(), replicated.call(table))
    error = largest_error(results, model.predict(table, verbose=0))
    assert 1e-5 < error < TOLERANCES[precision]
    kept = {"float32"} if make is convolution else set()  # of the normalization
    assert float_dtypes(replicated.model) == {precision} | kept
    assert tf_keras.mixed_precision.global_policy().name == "float32"


@pytest.mark.parametrize("library", LIBRARIES)
def test_float32_of_a_mixed_model(library, strategies, rows):
    lib = LIBRARIES[library]
    model = mixed(lib)
    replicated = models.replicate(model, strategies[2], "float32")
    assert {layer.compute_dtype for layer in replicated.model.layers} == {"float32"}
    whole = lib.Sequential([lib.Input((4,)), lib.layers.Dense(3, activation="softmax")])
    whole.set_weights(model.get_weights())
    np.testing.assert_allclose(replicated.call(rows), whole(rows), rtol=1e-5)


def test_a_model_of_the_scope_is_rebuilt_unless_it_has_the_precision(strategies):
    with strategies[2].scope():
        model = dense(keras)
    assert models.replicate(model, strategies[2], "float32").model is model
    low = models.replicate(model, strategies[2], "float16").model
    assert low is not model
    assert float_dtypes(low) == {"float16"}
    assert models.replicate(low, strategies[2], "float16").model is low
    assert float_dtypes(models.replicate(low, strategies[2], "float32").model) == {
        "float32"
    }


@pytest.mark.parametrize("library", LIBRARIES)
def test_text_and_integers_stay(library, strategies):
    lib = LIBRARIES[library]
    layers = lib.layers
    words = lib.Input((2,), dtype="string")
    ids = layers.StringLookup(vocabulary=["a", "b", "c"])(words)
    x = layers.Flatten()(layers.Embedding(4, 3)(ids))
    model = randomize(lib.Model(words, [layers.Dense(2)(x), ids]))
    replicated = models.replicate(model, strategies[2], "bfloat16")
    text = tf.constant([["a", "c"], ["?", "b"]])
    values, found = replicated.call(text)
    assert replicated.input_spec.dtype == tf.string
    assert values.dtype == tf.float32
    np.testing.assert_array_equal(found, [[1, 3], [0, 2]])
    error = largest_error(values.numpy(), model(text)[0].numpy())
    assert error < TOLERANCES["bfloat16"]


def test_bag_of_words_keeps_its_own_weights(strategies):
    vectorize = keras.layers.TextVectorization(output_mode="tf_idf")
    vectorize.adapt(["a a b", "b c", "c d"])
    model = keras.Sequential(
        [keras.Input((), dtype="string"), vectorize, keras.layers.Dense(2)]
    )
    replicated = models.replicate(model, strategies[2], "bfloat16")
    text = tf.constant(["a b d", "c"])
    np.testing.assert_allclose(replicated.call(text), model(text), atol=0.02)


def test_ids_that_come_as_floats_are_not_rounded(strategies):
    model = keras.Sequential([keras.Input((1,)), keras.layers.Embedding(1000, 1)])
    model.set_weights([np.arange(1000.0)[:, np.newaxis] % 2])
    replicated = models.replicate(model, strategies[2], "bfloat16")
    ids = np.float32([[301], [302], [999]])
    np.testing.assert_array_equal(replicated.call(ids)[:, 0, 0], [1, 0, 1])


@pytest.mark.parametrize("library", LIBRARIES)
def test_unbuilt_models_are_built_in_the_precision(library, strategies, rows):
    lib = LIBRARIES[library]

    class Late(lib.Model):
        def build(self, input_shape):
            self.dense = lib.layers.Dense(2)
            super().build(input_shape)

        def call(self, inputs):
            return self.dense(inputs)

    replicated = models.replicate(Late(), strategies[2], "float16")
    models.build(replicated, rows[:1])
    assert float_dtypes(replicated.model) == {"float16"}
    assert replicated.call(rows).dtype == tf.float32
    assert lib.layers.Dense(1).compute_dtype == "float32"


def test_compile_settings_come_along(strategies, table):
    model = randomize(dense(keras))
    model.compile("adam", "mse", metrics=["mae"])
    table = table[:10]
    targets = table[:, :3]
    model.fit(table, targets, verbose=0)
    low = models.replicate(model, strategies[2], "bfloat16").model
    assert int(low.optimizer.iterations.numpy()) == 1
    np.testing.assert_allclose(
        low.evaluate(table, targets, verbose=0),
        model.evaluate(table, targets, verbose=0),
        rtol=0.02,
    )


def test_weights_can_be_copied_anew(strategies, table):
    model = randomize(nested(keras))
    with strategies[2].scope():
        predictor = mgpu.Predictor(model, precision="bfloat16")
    model.set_weights([weight / 2 for weight in model.get_weights()])
    predictor.model.set_weights(model.get_weights())
    error = largest_error(
        predictor.predict(table, verbose=0), model.predict(table, verbose=0)
    )
    assert error < TOLERANCES["bfloat16"]


@pytest.mark.parametrize("suffix", [".keras", ".h5"])
def test_reads_files(suffix, strategies, tmp_path, table):
    model = randomize((attention if suffix == ".keras" else dense)(keras))
    path = str(tmp_path / f"model{suffix}")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("absl.logging.warning", lambda *_: None)
        model.save(path)
    with strategies[2].scope():
        predictor = mgpu.load(path, precision="bfloat16")
    assert float_dtypes(predictor.model) == {"bfloat16"}
    error = largest_error(
        predictor.predict(table, verbose=0), model.predict(table, verbose=0)
    )
    assert 1e-5 < error < TOLERANCES["bfloat16"]


def test_refuses_saved_models(strategies, tmp_path):
    path = str(tmp_path / "exported")
    tf.saved_model.save(tf.Module(), path)
    with (
        strategies[2].scope(),
        pytest.raises(ValueError, match=r"='float16' for the SavedModel .*\.keras`"),
    ):
        mgpu.load(path, precision="float16")


class Forced(keras.layers.Layer):
    def __init__(self):
        super().__init__(dtype="float32")

    def call(self, inputs):
        return inputs * 2


class ForcedWeight(keras.layers.Layer):
    def build(self, input_shape):
        self.scale = self.add_weight(shape=(), dtype="float32", name="scale")

    def call(self, inputs):
        return inputs * keras.ops.cast(self.scale, inputs.dtype)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (Forced, r"layer 'forced\w*' \(Forced\) forces the dtypes \['float32'\]"),
        (ForcedWeight, r"variable '\S*/scale' is forced to be float32"),
    ],
)
def test_refuses_layers_that_force_a_dtype(make, message, strategies):
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(4), make()])
    with pytest.raises(ValueError, match=f"(?s){message}.*precision=None"):
        models.replicate(model, strategies[2], "bfloat16")
    models.replicate(model, strategies[2], "float32")


def test_code_that_cannot_work_in_the_precision(strategies, rows):
    times = keras.layers.Lambda(lambda x: x * tf.constant(FACTOR))
    model = keras.Sequential([keras.Input((4,)), times])
    with strategies[2].scope():
        predictor = mgpu.Predictor(model, precision="bfloat16")
        exact = mgpu.Predictor(model, precision="float32")
    with pytest.raises(ValueError, match="(?s)fails with precision='bfloat16'.*None"):
        predictor.predict(rows, verbose=0)
    np.testing.assert_array_equal(exact.predict(rows, verbose=0), rows * FACTOR)


def test_refuses_quantized_models(strategies):
    model = dense(keras)
    model.layers[0].quantize("int8")
    with pytest.raises(ValueError, match="layer 'dense.*' is quantized .*int8_from_"):
        models.replicate(model, strategies[2], "bfloat16")


def test_refuses_what_cannot_be_made_from_its_configuration(strategies):
    model = FromLayers([keras.layers.Dense(2)])
    with pytest.raises(
        ValueError, match="(?s)FromLayers.*precision='float16'.*`get_config"
    ):
        models.replicate(model, strategies[2], "float16")


def test_refuses_weights_beyond_the_range_of_float16(strategies):
    model = dense(keras)
    model.layers[-1].bias.assign([1.0, -7e4, 6e4])
    with pytest.raises(ValueError, match=r"bias' holds 70000, .*65504.*'bfloat16'"):
        models.replicate(model, strategies[2], "float16")
    models.replicate(model, strategies[2], "bfloat16")
