"""Inputs that are absent, and sparse ones, in processes of Ray."""

import inspect

import keras
import numpy as np
import pytest
import scipy.sparse
import tensorflow as tf

import keras_mgpu_strategy as mgpu

pytestmark = pytest.mark.slow

ROWS = np.eye(7, 3, dtype=np.float32)


class Pick(keras.layers.Layer):
    """Gives the number of stored values of sparse rows, and the sum of others."""

    def call(self, x, more=None):
        if isinstance(x, tf.SparseTensor):
            x = tf.sparse.map_values(tf.ones_like, x)
            x = 100.0 + tf.sparse.to_dense(x)
        return x if more is None else x + more

    def compute_output_spec(self, x, more=None):
        return keras.KerasTensor((x.shape[0], 3), "float32")


@pytest.mark.skipif(
    "optional" not in inspect.signature(keras.Input).parameters,
    reason="this version of Keras has no optional inputs",
)
def test_as_here(cluster, tmp_path):
    x = keras.Input((3,), sparse=True, name="x")
    more = keras.Input((3,), optional=True, name="more")
    model = keras.Model({"x": x, "more": more}, Pick()(x, more))
    predictor = mgpu.Predictor(
        model, engine="ray", ray=mgpu.RayOptions(2, cpus_per_actor=1)
    )
    sparse = scipy.sparse.csr_array(2 * ROWS)
    for rows in (ROWS, sparse):
        for other in (None, ROWS):
            given = {"x": rows, "more": other}
            result = predictor.predict(given, 4, verbose=0)
            np.testing.assert_array_equal(result, model.predict(given, verbose=0))
    np.savez(tmp_path / "x.npz", x=ROWS)
    np.save(tmp_path / "x.npy", ROWS)
    for files in (tmp_path / "x.npz", {"x": tmp_path / "x.npy", "more": None}):
        np.testing.assert_array_equal(predictor.predict(files, 4, verbose=0), ROWS)
