"""Models that compute in float64 are given float64 by every kind of input.

Keras rounds arrays to float32 first, of which nothing is left here: the values differ
from each other by less than float32 tells apart.
"""

import h5py
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
import scipy.sparse
import tensorflow as tf
import zarr

import keras_mgpu_strategy as mgpu
from tests.conformance.zoo import keras

OFFSET = 1.7e9
TIMES = OFFSET + np.arange(37)[:, None] / 4
EXPECTED = TIMES - OFFSET


class Shift(keras.Model):
    """Declares nothing about its input."""

    def call(self, x):
        rows = x["t"] if isinstance(x, dict) else x
        if isinstance(rows, tf.SparseTensor):
            rows = tf.sparse.to_dense(rows)
        return rows - tf.cast(OFFSET, rows.dtype)


def _declared():
    inputs = keras.Input((1,), dtype="float64", name="t")
    shift = keras.layers.Rescaling(1.0, offset=-OFFSET, dtype="float64")
    return keras.Model(inputs, shift(inputs))


def _hdf5(folder):
    with h5py.File(folder / "x.h5", "w") as file:
        file["t"] = TIMES
    return folder / "x.h5"


def _zarr(folder):
    zarr.create_array(str(folder / "x.zarr"), data=TIMES)
    return folder / "x.zarr"


def _npy(folder):
    np.save(folder / "x.npy", TIMES)
    return folder / "x.npy"


def _npz(folder):
    np.savez(folder / "x.npz", t=TIMES)
    return folder / "x.npz"


def _table(kind):
    def write(folder):
        path = folder / f"x.{kind}"
        frame = pd.DataFrame(TIMES, columns=["t"])
        getattr(frame, f"to_{kind}")(path, index=False)
        return path

    return write


def _records(folder):
    path = str(folder / "x.tfrecord")
    with tf.io.TFRecordWriter(path) as writer:
        for row in TIMES:
            writer.write(tf.io.serialize_tensor(row).numpy())
    parse = lambda r: tf.ensure_shape(tf.io.parse_tensor(r, tf.float64), [1])  # noqa: E731
    return mgpu.files.TFRecords(path, parse)


KINDS = {
    "array": lambda _: TIMES,
    "strange byte order": lambda _: TIMES.astype(">f8"),
    "dict": lambda _: {"t": TIMES},
    "tensor": lambda _: tf.constant(TIMES),
    "pandas": lambda _: pd.DataFrame(TIMES, columns=["t"]),
    "polars": lambda _: pl.DataFrame(TIMES, schema=["t"]),
    "Arrow": lambda _: pa.table({"t": TIMES[:, 0]}),
    "sparse": lambda _: scipy.sparse.csr_array(TIMES),
    "sparse tensor": lambda _: tf.sparse.from_dense(TIMES),
    "data set": lambda _: tf.data.Dataset.from_tensor_slices(TIMES).batch(5),
    "generator": lambda _: iter(np.array_split(TIMES, 4)),
    "npy": _npy,
    "npz": _npz,
    "hdf5": _hdf5,
    "zarr": _zarr,
    "csv": _table("csv"),
    "parquet": _table("parquet"),
    "records": _records,
}


@pytest.fixture(scope="module", params=["declared", "undeclared"])
def predictor(request, strategies):
    """The one model on two replicas."""
    with strategies[2].scope():
        is_declared = request.param == "declared"
        return mgpu.Predictor(_declared() if is_declared else Shift(dtype="float64"))


def test_no_kind_of_input_rounds(predictor, tmp_path):
    for kind, make in KINDS.items():
        found = predictor.predict(make(tmp_path), batch_size=8, verbose=0)
        assert found.dtype == np.float64, kind
        np.testing.assert_array_equal(found.ravel(), EXPECTED.ravel(), kind)


def test_what_computes_in_float32_is_given_that(strategies, tmp_path):
    with strategies[1].scope():
        predictor = mgpu.Predictor(Shift())
    expected = TIMES.astype(np.float32) - np.float32(OFFSET)
    for kind in ("array", "data set", "npy", "parquet"):
        found = predictor.predict(KINDS[kind](tmp_path), batch_size=8, verbose=0)
        np.testing.assert_array_equal(found.ravel(), expected.ravel(), kind)
