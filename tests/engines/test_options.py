"""Options of a Predictor: which values there are, and XLA."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import helpers

ENGINES = ["threads", "mirrored"]


class CountTraces(keras.layers.Layer):
    """Counts in Python, so once for each trace rather than for each call."""

    count = 0

    def call(self, inputs):
        type(self).count += 1
        return inputs


@pytest.fixture(scope="module")
def images():
    """Twenty-one images of 6x6x2."""
    return np.random.default_rng(0).random((21, 6, 6, 2), dtype=np.float32)


def dense():
    layers = keras.layers
    return [layers.Flatten(), layers.Dense(8, activation="gelu"), layers.Dense(3)]


def convolution():
    layers = keras.layers
    return [layers.Conv2D(4, 3), layers.BatchNormalization(), layers.Flatten()]


def attention():
    rows = [keras.Input((12, 6)), keras.layers.LayerNormalization()]
    inner = keras.Sequential([*rows, keras.layers.Dense(4)])
    inputs = keras.Input((12, 6))
    x = inner(inputs)
    outputs = keras.layers.MultiHeadAttention(2, 4)(x, x)
    return [keras.layers.Reshape((12, 6)), keras.Model(inputs, outputs)]


def on_two(strategies, layers, **options):
    with strategies[2].scope():
        return mgpu.Predictor(keras.Sequential(layers), **options)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"precision": "half"}, r"precision='half'.*float32.*bfloat16.*float16"),
        ({"precision": "mixed_float16"}, r"Expected one of \[None, 'float32'"),
        ({"jit_compile": "yes"}, r"jit_compile='yes'.*\[False, True, 'auto'\]"),
        ({"compile": "jit"}, r"compile='jit'.*'auto', 'plain', 'frozen', 'xla'\]"),
        (
            {"compile": "frozen", "jit_compile": True},
            r"compile='frozen' with jit_compile=True, which is .*compile='xla'. Pass",
        ),
        (
            {"compile": "xla", "jit_compile": False},
            r"compile='xla' with jit_compile=False, which is .*compile='plain'. Pass",
        ),
        ({"engine": "fast"}, r"engine='fast'.*'mirrored', 'threads'"),
    ],
)
def test_unknown_values_are_refused_before_the_model_is_touched(options, message):
    with pytest.raises(ValueError, match=message):
        mgpu.Predictor(None, **options)
    with pytest.raises(ValueError, match=message):
        mgpu.load("nowhere.keras", **options)


@pytest.mark.parametrize(
    ("outputs", "error", "message"),
    [
        (3, TypeError, r"outputs=3 of type int. Expected the name of a layer, a list"),
        (["pool", None], TypeError, r"outputs=\['pool', None\] of type list. Expected"),
        ([], ValueError, r"outputs=\[\] names nothing. Expected the name of a layer"),
        ("", ValueError, r"outputs='' names nothing"),
        (["a", "b", "a"], ValueError, r"has a name twice. Expected each name once"),
    ],
)
def test_outputs_that_are_not_names(outputs, error, message):
    with pytest.raises(error, match=message):
        mgpu.Predictor(None, outputs=outputs)


def test_a_profile_that_is_not_a_path_is_refused_before_the_model_is_touched():
    with pytest.raises(TypeError, match="profile=3 of type int. Expected the path"):
        mgpu.Predictor(None, profile=3)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("make", [dense, convolution, attention])
def test_xla_gives_the_same_results(make, engine, strategies, images):
    model = keras.Sequential([keras.Input((6, 6, 2)), *make()])
    with strategies[2].scope():
        predictor = mgpu.Predictor(model, engine=engine, jit_compile=True)
    np.testing.assert_allclose(
        predictor.predict(images, 8, verbose=0),
        model.predict(images, verbose=0),
        rtol=1e-4,
        atol=1e-5,
    )


@pytest.mark.parametrize("engine", ENGINES)
def test_a_model_is_traced_once_for_all_replicas_and_each_shape(engine, strategies):
    layers = [keras.Input((None,)), CountTraces(), keras.layers.Rescaling(2.0)]
    predictor = on_two(strategies, layers, engine=engine, jit_compile=True)
    before = CountTraces.count
    for num_rows in (21, 40, 3, 8):
        x = helpers.numbered_rows(num_rows, num_columns=4)
        np.testing.assert_array_equal(predictor.predict(x, 8, verbose=0), 2 * x)
    assert CountTraces.count - before == 1
    x = helpers.numbered_rows(21, num_columns=5)
    np.testing.assert_array_equal(predictor.predict(x, 8, verbose=0), 2 * x)
    assert CountTraces.count - before == 2


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("num_rows", [2, 30])
def test_what_xla_cannot_compile(num_rows, engine, strategies):
    words = np.array([["a"], ["b"], ["?"]] * 10)[:num_rows]
    lookup = keras.layers.StringLookup(vocabulary=["a", "b"])
    layers = [keras.Input((1,), dtype="string"), lookup]
    predictor = on_two(strategies, layers, engine=engine, jit_compile=True)
    message = "XLA cannot compile the model: .*\n.*compile=.plain."
    with helpers.no_thread_left(), pytest.raises(ValueError, match=message):
        predictor.predict(words, 4, verbose=0)
    plain = on_two(strategies, layers, engine=engine, jit_compile=False)
    expected = np.array([[1], [2], [0]] * 10)[:num_rows]
    np.testing.assert_array_equal(plain.predict(words, 4, verbose=0), expected)


def test_python_code_cannot_be_compiled(strategies):
    def twice(x):
        return tf.ensure_shape(tf.py_function(lambda y: y * 2, [x], x.dtype), x.shape)

    layers = [keras.Input((2,)), keras.layers.Lambda(twice, output_shape=(2,))]
    x = helpers.numbered_rows(9)
    with pytest.raises(ValueError, match="EagerPyFunc.*\n.*compile=.plain."):
        on_two(strategies, layers, jit_compile=True).predict(x, verbose=0)
    auto = on_two(strategies, layers, jit_compile="auto")
    np.testing.assert_array_equal(auto.predict(x, verbose=0), 2 * x)


@pytest.mark.parametrize("engine", ENGINES)
def test_errors_of_the_model_are_not_taken_for_errors_of_xla(engine, strategies):
    def check(x):
        tf.debugging.assert_less(x, 5.0, message="too large")
        return tf.identity(x)

    layers = [keras.Input((2,)), keras.layers.Lambda(check, output_shape=(2,))]
    predictor = on_two(strategies, layers, engine=engine, jit_compile=False)
    with pytest.raises(tf.errors.InvalidArgumentError, match="too large"):
        predictor.predict(helpers.numbered_rows(9), 2, verbose=0)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision_with_xla_and_both_engines(precision, engine, strategies, images):
    model = keras.Sequential([keras.Input((6, 6, 2)), *convolution()])
    with strategies[2].scope():
        predictor = mgpu.Predictor(
            model, engine=engine, jit_compile=True, precision=precision
        )
    results = predictor.predict(images, 8, verbose=0)
    expected = model.predict(images, verbose=0)
    assert results.dtype == np.float32
    error = np.abs(results - expected).max() / np.abs(expected).max()
    assert 1e-6 < error < {"bfloat16": 3e-2, "float16": 4e-3}[precision]


def test_probabilities_are_made_in_float32(strategies, images):
    predictor = on_two(strategies, [*dense()], precision="bfloat16")
    probabilities = predictor.predict_proba(images, verbose=0, from_logits=True)
    assert probabilities.dtype == np.float32
    np.testing.assert_allclose(probabilities.sum(axis=1), 1.0, rtol=1e-6)
    classes = predictor.predict_classes(images, verbose=0)
    np.testing.assert_array_equal(classes, probabilities.argmax(axis=1))
