"""What each method does to the outputs, on tensors and by its name."""

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.predictor import Predictor

LOGITS = np.array([[1.0, 3.0, -2.0], [0.0, 0.0, 0.5], [-9.0, -9.5, -8.0]], np.float32)
SEQUENCE = np.stack([LOGITS, -LOGITS])  # (2, 3, 3): classes of each time step
ONE_COLUMN = np.array([[0.2], [0.5], [0.51], [-3.0], [7.0]], np.float32)


def test_identity_returns_the_very_tensor():
    outputs = tf.constant(LOGITS)
    assert heads.identity(outputs) is outputs


@pytest.mark.parametrize("logits", [LOGITS, SEQUENCE], ids=["rows", "sequence"])
def test_logits_become_a_softmax_over_the_last_axis(logits):
    result = heads.probabilities_from_logits(tf.constant(logits)).numpy()
    expected = np.exp(logits) / np.exp(logits).sum(axis=-1, keepdims=True)
    np.testing.assert_allclose(result, expected, rtol=1e-6)
    np.testing.assert_allclose(result.sum(axis=-1), 1.0, rtol=1e-6)


@pytest.mark.parametrize(
    "logits", [ONE_COLUMN, ONE_COLUMN[:, 0]], ids=["column", "flat"]
)
def test_one_column_of_logits_becomes_a_sigmoid(logits):
    result = heads.probabilities_from_logits(tf.constant(logits)).numpy()
    np.testing.assert_allclose(result, 1 / (1 + np.exp(-logits)), rtol=1e-6)


@pytest.mark.parametrize("outputs", [LOGITS, SEQUENCE], ids=["rows", "sequence"])
@pytest.mark.parametrize("head", [heads.class_ids, heads.class_ids_from_logits])
def test_class_is_the_largest_column(head, outputs):
    result = head(tf.constant(outputs)).numpy()
    np.testing.assert_array_equal(result, outputs.argmax(axis=-1))
    assert result.dtype == np.int64


def test_of_equal_columns_the_first_is_the_class():
    assert heads.class_ids(tf.constant([[0.5, 0.5]])).numpy().tolist() == [0]


def test_one_column_is_class_1_above_a_half():
    result = heads.class_ids(tf.constant(ONE_COLUMN)).numpy()
    # Keras 2: (proba > 0.5).astype("int32"), so that 0.5 itself is class 0.
    assert result.tolist() == [[0], [0], [1], [0], [1]]
    assert result.dtype == np.int32


def test_one_column_of_logits_is_class_1_above_0():
    logits = tf.constant([[-0.1], [0.0], [0.1]])
    result = heads.class_ids_from_logits(logits)
    assert result.numpy().tolist() == [[0], [0], [1]]
    assert result.dtype == tf.int32


def test_classes_of_logits_are_those_of_their_probabilities():
    for values in (LOGITS, ONE_COLUMN):
        logits = tf.constant(values)
        from_probabilities = heads.class_ids(heads.probabilities_from_logits(logits))
        np.testing.assert_array_equal(
            heads.class_ids_from_logits(logits), from_probabilities
        )


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float64"])
def test_dtypes_other_than_float32(dtype):
    outputs = tf.cast(LOGITS, dtype)
    assert heads.probabilities_from_logits(outputs).dtype == outputs.dtype
    assert heads.class_ids(outputs).numpy().tolist() == [1, 2, 2]
    assert keras.backend.standardize_dtype(heads.identity(outputs).dtype) == dtype


@pytest.mark.parametrize(
    ("method", "from_logits", "head"),
    [
        ("predict", False, heads.identity),
        ("predict_proba", False, heads.identity),
        ("predict_proba", True, heads.probabilities_from_logits),
        ("predict_classes", False, heads.class_ids),
        ("predict_classes", True, heads.class_ids_from_logits),
    ],
)
def test_heads(method, from_logits, head):
    assert heads.head_of(method, from_logits=from_logits) is head


@pytest.mark.parametrize("method", ["", "fit", "Predict", "predict_iter", None])
def test_other_methods_are_refused(method):
    with pytest.raises(ValueError, match=r"method=.*Expected one of \['predict', 'pre"):
        heads.head_of(method)


def test_predict_takes_no_logits():
    with pytest.raises(ValueError, match="from_logits=True with method='predict'"):
        heads.head_of("predict", from_logits=True)


def test_every_name_is_a_method_of_the_predictor():
    assert all(callable(getattr(Predictor, name)) for name in heads.METHODS)
