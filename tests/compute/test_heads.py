"""What each method does to the outputs, on tensors and by its name."""

import copy
import pickle

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.heads import Head, head_of
from keras_mgpu_strategy.predictor import Predictor
from tests import helpers

LOGITS = np.array([[1.0, 3.0, -2.0], [0.0, 0.0, 0.5], [-9.0, -9.5, -8.0]], np.float32)
SEQUENCE = np.stack([LOGITS, -LOGITS])  # (2, 3, 3): classes of each time step
ONE_COLUMN = np.array([[0.2], [0.5], [0.51], [-3.0], [7.0]], np.float32)
TO_PROBABILITIES = head_of("predict_proba", from_logits=True)
TO_CLASSES = head_of("predict_classes")
LOGITS_TO_CLASSES = head_of("predict_classes", from_logits=True)


def test_identity_returns_the_same_tensor():
    outputs = tf.constant(LOGITS)
    assert heads.identity(outputs) is outputs


@pytest.mark.parametrize("logits", [LOGITS, SEQUENCE], ids=["rows", "sequence"])
def test_logits_become_a_softmax_over_the_last_axis(logits):
    result = TO_PROBABILITIES(tf.constant(logits)).numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(result.sum(axis=-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "logits", [ONE_COLUMN, ONE_COLUMN[:, 0]], ids=["column", "flat"]
)
def test_one_column_of_logits_becomes_a_sigmoid(logits):
    result = TO_PROBABILITIES(tf.constant(logits)).numpy()
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-logits)), rtol=1e-6)


@pytest.mark.parametrize("outputs", [LOGITS, SEQUENCE], ids=["rows", "sequence"])
@pytest.mark.parametrize("head", [TO_CLASSES, LOGITS_TO_CLASSES])
def test_class_is_the_largest_column(head, outputs):
    result = head(tf.constant(outputs)).numpy()
    np.testing.assert_array_equal(result, outputs.argmax(axis=-1))
    assert result.dtype == np.int64


def test_of_equal_columns_the_first_is_the_class():
    assert TO_CLASSES(tf.constant([[0.5, 0.5]])).numpy().tolist() == [0]


def test_one_column_is_class_1_above_a_half():
    result = TO_CLASSES(tf.constant(ONE_COLUMN)).numpy()
    # Keras 2: (proba > 0.5).astype("int32"), so that 0.5 itself is class 0.
    assert result.tolist() == [[0], [0], [1], [0], [1]]
    assert result.dtype == np.int32


def test_one_column_of_logits_is_class_1_above_0():
    logits = tf.constant([[-0.1], [0.0], [0.1]])
    result = LOGITS_TO_CLASSES(logits)
    assert result.numpy().tolist() == [[0], [0], [1]]
    assert result.dtype == tf.int32


def test_classes_of_logits_are_those_of_their_probabilities():
    for values in (LOGITS, ONE_COLUMN):
        logits = tf.constant(values)
        from_probabilities = TO_CLASSES(TO_PROBABILITIES(logits))
        np.testing.assert_array_equal(LOGITS_TO_CLASSES(logits), from_probabilities)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_other_than_float32(dtype):
    outputs = tf.cast(LOGITS, dtype)
    assert TO_PROBABILITIES(outputs).dtype == outputs.dtype
    assert TO_CLASSES(outputs).numpy().tolist() == [1, 2, 2]
    assert keras.backend.standardize_dtype(heads.identity(outputs).dtype) == dtype


@pytest.mark.parametrize("jit_compile", [False, True])
def test_nan_is_the_best_class_as_in_numpy(jit_compile):
    scores = [[0, np.nan, 1], [np.nan] * 3, [0, 1, np.nan], [2, 2, 1], [-np.inf] * 3]
    classes = tf.function(TO_CLASSES, jit_compile=jit_compile)(tf.constant(scores))
    np.testing.assert_array_equal(classes, np.argmax(scores, -1))


@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "float64"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_best_k_of_floats_are_those_of_a_stable_sort(jit_compile, dtype):
    rng = np.random.default_rng(0)
    scores = rng.integers(-3, 3, (6, 4001)) + 0.0  # many ties
    scores[1] *= rng.choice([0.0, -0.0, 1.0], 4001)  # zeros of both signs
    scores[2][rng.random(4001) < 0.3] = np.nan
    scores[2][rng.random(4001) < 0.3] = np.inf
    scores[3, 7] = np.nan
    scores[4] = np.nan
    scores[5] = -np.inf
    outputs = tf.cast(tf.constant(scores), dtype)
    for k in (1, 5, 100):  # XLA has other kernels for small k
        best = tf.function(head_of("predict_top_k", k=k), jit_compile=jit_compile)
        _assert_best(best(outputs), outputs.numpy(), k)


@pytest.mark.parametrize("dtype", ["int32", "int64", "uint8"])
@pytest.mark.parametrize("jit_compile", [False, True])
def test_the_best_k_of_integers_and_of_each_step(jit_compile, dtype):
    scores = np.random.default_rng(0).integers(0, 100, (3, 4, 50)).astype(dtype)
    best = tf.function(head_of("predict_top_k", k=50), jit_compile=jit_compile)
    results = best({"a": tf.constant(scores), "b": [tf.constant(scores[:, 0])]})
    _assert_best(results["a"], scores, 50)
    _assert_best(results["b"][0], scores[:, 0], 50)


def _assert_best(result, scores, k):
    classes, best = helpers.top_k(scores, k)
    assert result["classes"].dtype == tf.int32
    np.testing.assert_array_equal(result["classes"], classes)
    assert result["scores"].dtype == scores.dtype
    wide = np.float64 if scores.dtype.kind in "fV" else scores.dtype
    np.testing.assert_array_equal(result["scores"].numpy().astype(wide), best)


def test_the_best_k_of_logits_have_their_probabilities():
    head = head_of("predict_top_k", from_logits=True, k=2)
    result = head(tf.constant(SEQUENCE))
    classes, scores = helpers.top_k(tf.nn.softmax(SEQUENCE).numpy(), 2)
    np.testing.assert_array_equal(result["classes"], classes)
    np.testing.assert_allclose(result["scores"], scores, rtol=1e-6)


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("before", ["float16", "bfloat16", "float32", "float64"])
def test_floats_are_cast_last(before, dtype):
    outputs = {
        "a": tf.cast(LOGITS, before),
        "n": tf.constant([3]),
        "s": tf.constant(""),
    }
    results = Head(dtype=dtype)(outputs)
    assert results["a"].dtype == dtype
    np.testing.assert_array_equal(
        results["a"], np.asarray(tf.cast(outputs["a"], dtype))
    )
    assert results["n"] is outputs["n"] and results["s"] is outputs["s"]
    assert Head("predict_classes", dtype=dtype)(outputs["a"]).dtype == tf.int64
    # Two scores that only the wider dtype distinguishes.
    close = tf.constant([[1.0, 1.0 + 2.0**-12]])
    best = Head("predict_top_k", k=1, dtype=dtype)(close)
    assert best["classes"].numpy().tolist() == [[1]]
    assert best["classes"].dtype == tf.int32 and best["scores"].dtype == dtype


def test_heads_are_values():
    head = head_of("predict_top_k", from_logits=1, k=np.int64(3))
    assert head == Head("predict_top_k", from_logits=True, k=3)
    assert type(head.k) is int
    for other in (copy.deepcopy(head), pickle.loads(pickle.dumps(head))):
        assert other == head and hash(other) == hash(head)
    assert head_of("predict_top_k").k == 5
    assert head_of("predict") == heads.identity != head_of("predict_proba")


@pytest.mark.parametrize("method", ["", "fit", "Predict", "predict_iter", None])
def test_other_methods_are_refused(method):
    with pytest.raises(ValueError, match=r"method=.*Expected one of \['predict', 'pre"):
        head_of(method)


def test_predict_takes_no_logits():
    with pytest.raises(ValueError, match="from_logits=True with method='predict'"):
        head_of("predict", from_logits=True)


@pytest.mark.parametrize(
    ("k", "error"),
    [(0, ValueError), (-1, ValueError), (True, TypeError), (2.0, TypeError)],
)
def test_k_is_an_integer_of_at_least_1(k, error):
    with pytest.raises(error, match=f"k={k}.*Expected an integer of at least 1"):
        head_of("predict_top_k", k=k)


def test_only_top_k_takes_k():
    with pytest.raises(ValueError, match="k=5 with method='predict_proba'.*top_k"):
        head_of("predict_proba", k=5)


@pytest.mark.parametrize("shape", [(None,), (None, 1), (None, 7, 1)])
def test_one_number_for_each_row_cannot_be_ranked(shape):
    with pytest.raises(ValueError, match=r"of shape \(None,.*Call predict_classes"):
        head_of("predict_top_k", k=1).check({"a": tf.TensorShape(shape)})


def test_more_than_all_classes_are_refused():
    head = head_of("predict_top_k", k=4)
    message = r"k=4 is more than the 3 classes of .* shape \(3, 3\). Expected k of at m"
    with pytest.raises(ValueError, match=message):
        head(tf.constant(LOGITS))
    unknown = [tf.TensorShape(shape) for shape in (None, (None, None), (None, 4))]
    for shapes in (None, *unknown, unknown):
        head.check(shapes)
    heads.identity.check(tf.TensorShape([None, 3]))


@pytest.mark.parametrize("outputs", [[[True, False]], [["a", "b"]]])
def test_only_numbers_can_be_ranked(outputs):
    with pytest.raises(ValueError, match=r"dtype (bool|string), expected numbers"):
        head_of("predict_top_k", k=1)(tf.constant(outputs))


def test_every_name_is_a_method_of_the_predictor():
    assert all(callable(getattr(Predictor, name)) for name in heads.METHODS)
