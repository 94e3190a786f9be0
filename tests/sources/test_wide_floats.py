"""Models that compute in float64 are given float64 by every kind of input.

Keras rounds arrays to float32 first, which would make all values here equal: they
differ by less than float32 can distinguish.
"""

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.conformance.zoo import keras
from tests.inputs_zoo import INPUTS, NUM_FEATURES

OFFSET = 1.7e9
TIMES = OFFSET + np.arange(37 * NUM_FEATURES).reshape(37, NUM_FEATURES) / 4
EXPECTED = TIMES - OFFSET


class Shift(keras.Model):
    """Declares nothing about its input."""

    def call(self, x):
        rows = x["x"] if isinstance(x, dict) else x
        if isinstance(rows, tf.SparseTensor):
            rows = tf.sparse.to_dense(rows)
        return rows - tf.cast(OFFSET, rows.dtype)


def _declared():
    inputs = keras.Input((NUM_FEATURES,), dtype="float64", name="x")
    shift = keras.layers.Rescaling(1.0, offset=-OFFSET, dtype="float64")
    return keras.Model(inputs, shift(inputs))


def _records(x, folder):
    path = str(folder / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for row in x:
            writer.write(row.tobytes())
    return mgpu.files.TFRecords(path, lambda r: tf.io.decode_raw(r, tf.float64))


def _csv(x, folder):
    columns = [f"f{column}" for column in range(NUM_FEATURES)]
    return mgpu.files.Csv(INPUTS["csv"](x, folder), columns)


OTHERS = ("doubles", "bytes", "list_of_one", "hugging_face", "dataset_with_labels")
OTHERS += ("reused_memory", "tfrecords", "images")
"""Kinds that convert values themselves, or resemble one that is tested."""
KINDS = {kind: make for kind, make in INPUTS.items() if kind not in OTHERS} | {
    "strange byte order": lambda x, folder: x.astype(">f8"),
    "sparse tensor": lambda x, folder: tf.sparse.from_dense(x),
    "records": _records,
    "csv": _csv,
}


@pytest.fixture(scope="module", params=["declared", "undeclared"])
def predictor(request, strategies):
    """One model on two replicas."""
    with strategies[2].scope():
        is_declared = request.param == "declared"
        return mgpu.Predictor(_declared() if is_declared else Shift(dtype="float64"))


def test_no_kind_of_input_rounds(predictor, tmp_path):
    for kind, make in KINDS.items():
        (folder := tmp_path / kind).mkdir()
        found = predictor.predict(make(TIMES, folder), batch_size=8, verbose=0)
        assert found.dtype == np.float64, kind
        np.testing.assert_array_equal(found.ravel(), EXPECTED.ravel(), kind)


def test_models_that_compute_in_float32_are_given_that(strategies, tmp_path):
    with strategies[1].scope():
        predictor = mgpu.Predictor(Shift())
    expected = TIMES.astype(np.float32) - np.float32(OFFSET)
    for kind in ("array", "dataset", "npy", "parquet"):
        x = KINDS[kind](TIMES, tmp_path)
        found = predictor.predict(x, batch_size=8, verbose=0)
        np.testing.assert_array_equal(found.ravel(), expected.ravel(), kind)
