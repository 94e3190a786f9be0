"""Arrays, files and nests of them: order, laziness, views, lengths."""

import h5py
import numpy as np
import pytest
import tensorflow as tf
import zarr
from reading import Recorder, read, rows

from keras_mgpu_strategy.inputs import as_source

X = np.arange(22, dtype=np.float32).reshape(11, 2)


@pytest.mark.parametrize("start", [0, 1, 4, 10, 11])
def test_rows_come_once_and_in_order(start):
    source = as_source(X)
    assert source.num_rows == 11
    for batch_size in (1, 2, 3, 5, 11, 12):
        batches = read(source, batch_size, start)
        assert all(b.num_rows == batch_size for b in batches[:-1])
        joined = np.concatenate([X[:0], *(b.inputs for b in batches)])
        np.testing.assert_array_equal(joined, X[start:])


def test_only_the_rows_asked_for_are_read():
    recorder = Recorder(X.astype(np.float64))
    source = as_source({"a": recorder})
    assert recorder.slices == [(0, 0)]
    batches = source.batches(4, 2)
    next(batches)
    assert recorder.slices == [(0, 0), (2, 6)]
    assert [b.num_rows for b in batches] == [4, 1]
    assert recorder.slices == [(0, 0), (2, 6), (6, 10), (10, 11)]


def _memmap(folder):
    np.save(folder / "x.npy", X)
    return np.load(folder / "x.npy", mmap_mode="r")


def _h5py(folder):
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=X, chunks=(4, 2))


def _zarr(folder):
    array = zarr.create_array(
        store=str(folder / "x.zarr"), shape=X.shape, chunks=(4, 2), dtype=X.dtype
    )
    array[:] = X
    return array


def _big_endian(folder):
    return X.astype(">f4")


@pytest.mark.parametrize(
    "make", [_memmap, _h5py, _zarr, _big_endian, lambda folder: tf.Variable(X)]
)
def test_array_likes(make, tmp_path):
    source = as_source(make(tmp_path))
    assert source.num_rows == 11
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    np.testing.assert_array_equal(rows(source, 3, start=1), X[1:])


def _on_the_host(folder):
    with tf.device("CPU:0"):
        return tf.constant(X)


@pytest.mark.parametrize("make", [lambda folder: X, _on_the_host, _memmap])
def test_chunks_in_memory_are_views(make, tmp_path):
    x = make(tmp_path)
    batches = read(as_source(x), 3)
    assert all(np.shares_memory(b.inputs, np.asarray(x)) for b in batches)
    np.testing.assert_array_equal(np.concatenate([b.inputs for b in batches]), X)


def test_a_file_with_several_arrays_is_a_dict(tmp_path):
    np.savez(tmp_path / "x.npz", b=X, a=X + 1)
    with np.load(tmp_path / "x.npz") as archive:
        (batch,) = read(as_source(archive), 20)
    np.testing.assert_array_equal(batch.inputs["a"], X + 1)
    np.testing.assert_array_equal(batch.inputs["b"], X)


def test_a_nest_keeps_its_structure_and_the_order_of_its_keys():
    nest = {"b": X, "a": [X + 1, (X + 2, tf.constant(X + 3))]}
    source = as_source(nest)
    batch = read(source, 5)[1]
    assert list(batch.inputs) == ["b", "a"]
    tf.nest.assert_same_structure(batch.inputs, source.spec)
    flat = zip(tf.nest.flatten(nest), tf.nest.flatten(batch.inputs), strict=True)
    for whole, part in flat:
        np.testing.assert_array_equal(np.asarray(whole)[5:10], part)


def test_no_rows():
    source = as_source(np.zeros((0, 3), np.float32))
    assert source.num_rows == 0
    assert source.spec == tf.TensorSpec([None, 3], tf.float32)
    assert read(source, 4) == []


@pytest.mark.parametrize(
    ("steps", "batch_size", "expected"),
    [(2, 4, 8), (3, 4, 11), (1, 100, 11), (3, None, 11), (1, None, 11)],
)
def test_steps_limit_the_rows_as_in_keras(steps, batch_size, expected):
    source = as_source(X, steps=steps, batch_size=batch_size)
    assert source.num_rows == expected
    np.testing.assert_array_equal(rows(source), X[:expected])


def test_too_many_steps_warn():
    with pytest.warns(UserWarning, match=r"ran out of data: steps=4 .* it has 3"):
        assert as_source(X, steps=4, batch_size=4).num_rows == 11


def test_unequal_lengths_name_every_leaf():
    message = (
        r"unequal length \(x\['a'\]: 11, x\['b'\]\[0\]: 10\), "
        "expected the same number of rows"
    )
    with pytest.raises(ValueError, match=message):
        as_source({"b": [X[1:]], "a": X})


NO_AXES = tf.SparseTensor(np.zeros((1, 0), np.int64), [1.0], ())


@pytest.mark.parametrize(
    "scalar", [np.array(1.0), tf.constant(1.0), tf.Variable(1.0), NO_AXES]
)
def test_no_batch_axis(scalar):
    message = r"^x\['a'\] has shape \(\), expected a batch axis first. Use x\[np.newax"
    with pytest.raises(ValueError, match=message):
        as_source({"a": scalar})


@pytest.mark.parametrize("empty", [{}, [], ()])
def test_an_empty_nest(empty):
    message = f"Received an empty {type(empty).__name__}, expected NumPy arrays"
    with pytest.raises(ValueError, match=message):
        as_source(empty)


@pytest.mark.parametrize("start", [-1, 12])
def test_a_start_outside_the_input(start):
    message = f"Received start={start}, expected a row index from 0 to 11"
    with pytest.raises(ValueError, match=message):
        as_source(X).batches(4, start)


def test_a_file_that_shrinks_while_it_is_read(tmp_path):
    with h5py.File(tmp_path / "x.h5", "w") as file:
        dataset = file.create_dataset("x", data=X, maxshape=(None, 2))
        batches = as_source(dataset).batches(8)
        next(batches)
        dataset.resize(9, axis=0)
        message = (
            r"x: rows 8 to 11 came with shape \(1, 2\), expected \(3, 2\). The input "
            "must not change"
        )
        with pytest.raises(ValueError, match=message):
            next(batches)
