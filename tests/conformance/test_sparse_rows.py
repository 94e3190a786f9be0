"""Sparse rows give what Keras gives for them on one device, and for the dense rows."""

import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.conformance.zoo import keras

FEATURES = 12
ROWS = 29


def _model(sparse):
    keras.utils.set_random_seed(1)
    inputs = keras.Input((FEATURES,), sparse=sparse)
    hidden = keras.layers.Dense(8, "relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(3, "softmax")(hidden))


def _rows():
    rng = np.random.default_rng(3)
    return scipy.sparse.random(ROWS, FEATURES, 0.2, "csr", np.float32, rng)


def _data_set(matrix):
    tensor = tf.sparse.from_dense(matrix.toarray())
    return tf.data.Dataset.from_tensor_slices(tensor).batch(5)


KINDS = {
    "csr": lambda matrix: matrix,
    "csc": lambda matrix: matrix.tocsc(),
    "tensor": lambda matrix: tf.sparse.from_dense(matrix.toarray()),
    "data set": _data_set,
    "generator": lambda matrix: (matrix[i : i + 4] for i in range(0, ROWS, 4)),
}


def _check(result, expected, message=""):
    np.testing.assert_allclose(result, expected, 1e-5, 1e-6, err_msg=message)


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 4])
@pytest.mark.parametrize("engine", ["threads", "mirrored"])
@pytest.mark.parametrize("sparse", [False, True])
def test_sparse_rows(sparse, engine, num_replicas, strategies):
    matrix, plain = _rows(), _model(sparse)
    expected = plain.predict(matrix.toarray(), verbose=0)
    _check(plain.predict(matrix, verbose=0), expected)
    with strategies[num_replicas].scope():
        predictor = mgpu.Predictor(_model(sparse), engine=engine)
    for kind, convert in KINDS.items():
        result = predictor.predict(convert(matrix), batch_size=8, verbose=0)
        _check(result, expected, kind)


@pytest.mark.parametrize("batch_size", [None, 1, 3, 64])
def test_any_batch_size(batch_size, strategies):
    matrix, model = _rows(), _model(sparse=False)
    expected = model.predict(matrix.toarray(), verbose=0)
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    _check(predictor.predict(matrix, batch_size, verbose=0), expected)
