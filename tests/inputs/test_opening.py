"""Which inputs are taken, and how all others are refused."""

import h5py
import keras
import numpy as np
import polars as pl
import pyarrow as pa
import pyarrow.dataset
import pytest
import tensorflow as tf

from keras_mgpu_strategy.inputs import as_source

X = np.ones((4, 2), np.float32)


@pytest.mark.parametrize("value", [1, 32, np.int64(7), None])
def test_batch_sizes_that_are_accepted(value):
    as_source(X, batch_size=value)
    as_source(tf.data.Dataset.from_tensors(X), batch_size=value)


@pytest.mark.parametrize("value", [0, -3])
def test_counts_below_one(value):
    message = f"Received batch_size={value} for an input of type ndarray, expected 1 or"
    with pytest.raises(ValueError, match=message):
        as_source(X, batch_size=value)
    with pytest.raises(ValueError, match=f"Received steps={value}, expected 1 or more"):
        as_source(X, steps=value)


@pytest.mark.parametrize("value", [True, 2.0, "8", [1]])
def test_counts_that_are_not_integers(value):
    message = r"Received {}=.*\((bool|float|str|list)\).*expected an integer"
    with pytest.raises(ValueError, match=message.format("batch_size")):
        as_source(X, batch_size=value)
    with pytest.raises(ValueError, match=message.format("steps")):
        as_source(X, steps=value)


@pytest.mark.parametrize("x", [3.5, object(), {1, 2}, range])
def test_what_has_no_rows(x):
    kind = ValueError if isinstance(x, float) else TypeError
    with pytest.raises(kind, match="(Cannot read rows from|expected an array)"):
        as_source(x)


def test_the_refusal_lists_what_is_accepted():
    message = (
        "Cannot read rows from object, expected NumPy arrays, tensors, pandas .* "
        r"tf.data.Dataset, a keras.utils.PyDataset, a generator.*\(iter\(x\).*a path"
    )
    with pytest.raises(TypeError, match=message):
        as_source(object())


def test_bytes_are_not_a_path():
    with pytest.raises(TypeError, match=r"x is .*images.*read a file, open.*np.load"):
        as_source(b"images")


@pytest.mark.parametrize(
    ("x", "path"),
    [
        ([1.0, 2.0], r"x\[0\] is float 1.0"),
        ([[1, 2], [3, 4]], r"x\[0\]\[0\] is int 1"),
        ((X, [np.float32(1)]), r"x\[1\]\[0\] is float32 np.float32\(1.0\)"),
    ],
)
def test_lists_of_numbers(x, path):
    with pytest.raises(ValueError, match=path + r": .*pass a list .* np.asarray\(x\)"):
        as_source(x)


def test_none_alone():
    with pytest.raises(TypeError, match="x is NoneType: expected an array, or several"):
        as_source(None)


@pytest.mark.parametrize("nothing", [{"a": None}, [None, None], {"a": [None]}])
def test_none_without_any_array(nothing):
    kind = type(nothing).__name__
    with pytest.raises(ValueError, match=f"^Received a {kind} of None alone, expected"):
        as_source(nothing)


def test_none_is_an_absent_input():
    (batch,) = as_source({"a": X, "b": None, "c": [None, X]}).batches(len(X))
    assert batch.inputs["b"] == () and batch.inputs["c"][0] == ()
    np.testing.assert_array_equal(batch.inputs["c"][1], X)


def test_something_else_in_a_nest():
    dataset = tf.data.Dataset.from_tensors(X)
    message = r"x\[1\]: cannot read rows from _TensorDataset, expected NumPy arrays"
    with pytest.raises(TypeError, match=message):
        as_source([X, dataset])


def test_an_array_like_that_cannot_be_converted():
    class Broken:
        shape = (4, 2)

        def __getitem__(self, key):
            raise RuntimeError("no slices here")

    message = r"x: cannot read rows from Broken: x\[0:0\].*\(no slices here\)"
    with pytest.raises(TypeError, match=message):
        as_source(Broken())


def test_a_distributed_dataset_is_refused(strategies):
    dataset = tf.data.Dataset.from_tensors(X)
    distributed = strategies[2].experimental_distribute_dataset(dataset)
    with pytest.raises(TypeError, match="Cannot read rows from DistributedDataset"):
        as_source(distributed)


TABLE = pa.table({"a": [1, 2]})


@pytest.mark.parametrize(
    ("make", "kind", "message"),
    [
        (
            lambda: h5py.Empty("f4"),
            ValueError,
            "x is Empty: .*h5py.Empty.*leave it",
        ),
        (lambda: pl.LazyFrame({"a": [1]}), TypeError, r"LazyFrame: .*x.collect\(\)"),
        (
            lambda: TABLE["a"],
            TypeError,
            r"ChunkedArray: .*pyarrow.table\({'x': x}",
        ),
        (lambda: pa.array([1]), TypeError, "Int64Array: .*x.to_numpy"),
        (
            lambda: tf.ragged.constant([[1], [1, 2]]),
            TypeError,
            r"x is RaggedTensor: .*Pass pad=mgpu.Pad\(\), or x.to_tensor\(\)",
        ),
        (
            lambda: np.ma.masked_array([1.0, 2.0], [0, 1]),
            TypeError,
            r"x is MaskedArray: .*x.filled\(value\)",
        ),
        (
            lambda: keras.Input((2,)),
            TypeError,
            "x is KerasTensor: expected values. It is a symbolic tensor",
        ),
        (TABLE.to_reader, TypeError, r"RecordBatchReader: .*Pass x.read_all\(\)"),
        (lambda: pa.dataset.dataset(TABLE), TypeError, r"Dataset: .*x.to_table\(\)"),
    ],
)
def test_kinds_that_must_be_converted_first(make, kind, message):
    with pytest.raises(kind, match=message):
        as_source(make())
    with pytest.raises(kind, match=message.replace("x is", r"x\['a'\] is")):
        as_source({"a": make()})


def test_an_empty_hdf5_dataset(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        file["x"] = h5py.Empty("f4")
        with pytest.raises(ValueError, match="x is Dataset: .*empty value of HDF5"):
            as_source(file["x"])


def test_hugging_face_streams():
    class IterableDataset:
        """Stands for the class of that name, recognized by its module."""

    IterableDataset.__module__ = "datasets.iterable_dataset"
    message = r"IterableDataset: expected batches. Pass x.with_format\('numpy'\).iter"
    with pytest.raises(TypeError, match=message):
        as_source(IterableDataset())


@pytest.mark.parametrize("shape", [(float("nan"), 2), (object(), 2)])
def test_an_unknown_number_of_rows(shape):
    """As in arrays and frames of Dask."""

    class Lazy:
        def __getitem__(self, rows):
            raise AssertionError("read")

    Lazy.shape = shape
    message = r"^x is a Lazy of shape \(.*, 2\), .* x.compute_chunk_sizes\(\) on an"
    with pytest.raises(TypeError, match=message):
        as_source(Lazy())
