"""What the model is given for every dtype, and which dtypes are refused."""

import h5py
import keras
import ml_dtypes
import numpy as np
import pytest
import tensorflow as tf
import zarr
from reading import read, rows
from scipy.sparse import csr_array

from keras_mgpu_strategy.inputs import as_source

FLOATS = [np.float16, np.float32, np.float64, np.longdouble, ml_dtypes.bfloat16, ">f8"]
KEPT = [np.bool_, np.int8, np.uint8, np.int32, np.int64, np.complex64, ">i4"]
TEXT = ["a", "bé", "", "日本"]
ENCODED = np.array([[text.encode()] for text in TEXT], dtype=object)


CONVERT = {"dense": np.asarray, "matrix": csr_array, "tensor": tf.sparse.from_dense}


@pytest.mark.parametrize("kind", CONVERT)
def test_floats_become_floatx(kind):
    for dtype in FLOATS if kind == "dense" else [np.float64]:
        x = np.arange(6).reshape(3, 2).astype(dtype)
        source = as_source(CONVERT[kind](x))
        assert source.spec.dtype == tf.float32
        assert rows(source).dtype == np.float32
        np.testing.assert_array_equal(rows(source), x.astype(np.float32))


def test_floats_follow_keras_floatx():
    keras.config.set_floatx("float64")
    try:
        source = as_source(np.ones((2, 1), np.float32))
        assert source.spec.dtype == tf.float64
        assert rows(source).dtype == np.float64
    finally:
        keras.config.set_floatx("float32")


@pytest.mark.parametrize("kind", CONVERT)
def test_other_numbers_stay(kind):
    for dtype in KEPT if kind == "dense" else KEPT[:-1]:
        x = np.arange(6).reshape(3, 2).astype(dtype)
        source = as_source(CONVERT[kind](x))
        native = np.dtype(dtype).newbyteorder("=")
        assert source.spec.dtype == tf.as_dtype(native)
        assert rows(source).dtype == native
        np.testing.assert_array_equal(rows(source), x)


@pytest.mark.parametrize("dtype", ["bfloat16", "float16", "int32", "bool"])
def test_tensors(dtype):
    tensor = tf.cast(tf.constant([[0.0], [1.0]]), dtype)
    expected = tf.float32 if tensor.dtype.is_floating else tensor.dtype
    assert as_source(tensor).spec.dtype == expected
    np.testing.assert_array_equal(rows(as_source(tensor)), [[0], [1]])


def _h5py_strings(folder, dtype):
    file = h5py.File(folder / "x.h5", "w")
    data = [[text.encode()] for text in TEXT]
    return file.create_dataset("x", data=data, dtype=dtype)


def _zarr_strings(folder):
    data = np.array([[t] for t in TEXT], dtype=np.dtypes.StringDType())
    return zarr.create_array(store=str(folder / "x.zarr"), data=data)


@pytest.mark.parametrize(
    "make",
    [
        lambda folder: np.array([[t] for t in TEXT]),
        lambda folder: np.array([[t.encode()] for t in TEXT]),
        lambda folder: np.array([[t] for t in TEXT], dtype=np.dtypes.StringDType()),
        lambda folder: tf.constant([[t] for t in TEXT]),
        lambda folder: _h5py_strings(folder, h5py.string_dtype()),
        lambda folder: _h5py_strings(folder, "S8"),
        _zarr_strings,
    ],
)
@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
@pytest.mark.filterwarnings("ignore:.*does not have a Zarr V3 specification")
def test_strings_become_what_tensorflow_reads_as_strings(make, tmp_path):
    source = as_source(make(tmp_path))
    assert source.spec == tf.TensorSpec([None, 1], tf.string)
    for batch in read(source, 3):
        assert tf.convert_to_tensor(batch.inputs).dtype == tf.string
    np.testing.assert_array_equal(rows(source, 3), ENCODED)


def test_trailing_zero_bytes_of_serialized_records_are_kept():
    records = [b"\x01\x00", b"\x00\x00\x00"]
    assert rows(as_source(tf.constant(records))).tolist() == records


def test_strings_without_rows():
    (array,) = tf.nest.flatten(as_source(np.zeros((0, 2), "U3")).spec)
    assert array == tf.TensorSpec([None, 2], tf.string)


@pytest.mark.parametrize(
    ("x", "message"),
    [
        (
            np.array([1, "b"], dtype=object),
            r"x\['a'\] has dtype=object, expected numbers, bools or strings. Use "
            r".astype\(str\) for strings.*np.stack\(x\)",
        ),
        (
            np.array(["2020-01-01"], dtype="M8[D]"),
            r"x\['a'\] has dtype=datetime64\[D\].*Convert dates to numbers",
        ),
        (np.array([1], dtype="m8[s]"), r"timedelta64.*Convert durations to numbers"),
        (
            np.zeros(2, dtype=[("f", "f4")]),
            r"x\['a'\] has dtype=\[\('f', '<f4'\)\].*structured array as a dict",
        ),
        (np.zeros(2, np.clongdouble), r"dtype=c.*Convert it with .astype"),
    ],
)
def test_dtypes_without_a_counterpart(x, message):
    with pytest.raises(ValueError, match=message):
        as_source({"a": x})


def test_objects_are_not_unpickled(tmp_path):
    file = h5py.File(tmp_path / "x.h5", "w")
    ragged = file.create_dataset("x", (2,), dtype=h5py.vlen_dtype(np.float32))
    with pytest.raises(ValueError, match="x has rows of variable length"):
        as_source(ragged)


def test_floats_are_cast_a_chunk_at_a_time():
    x = np.ones((5, 2), np.float64)
    first = next(as_source(x).batches(2))
    assert first.inputs.shape == (2, 2) and first.inputs.base is None
