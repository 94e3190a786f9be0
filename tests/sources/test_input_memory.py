"""Rows are copied from array-likes that reuse the memory they hand out."""

import h5py
import numpy as np
import pytest
import tensorflow as tf
import zarr
from reading import read

from keras_mgpu_strategy.inputs import as_source


class Refilled:
    """All slices lie in one buffer, as in a loader that saves memory."""

    shape = (20, 1)
    dtype = np.dtype(np.float32)

    def __init__(self, give=lambda rows: rows, dtype=np.float32):
        self._buffer = np.empty(self.shape, dtype)
        self._give = give

    def __getitem__(self, rows):
        indices = np.arange(20)[rows]
        self._buffer[: len(indices), 0] = indices
        return self._give(self._buffer[: len(indices)])


@pytest.mark.parametrize(
    "give",
    [
        lambda rows: rows,
        memoryview,
        lambda rows: rows.view(np.recarray),
        lambda rows: np.ma.masked_array(rows),
    ],
)
def test_rows_stay_as_they_were_handed_out(give):
    source = as_source({"a": Refilled(give), "b": Refilled(give)})
    for batch_size, start in ((1, 0), (7, 6), (20, 0)):
        batches = read(source, batch_size, start)
        for name in ("a", "b"):
            rows = np.concatenate([batch.inputs[name] for batch in batches])
            np.testing.assert_array_equal(rows[:, 0], np.arange(start, 20))


def test_rows_that_were_converted_are_new_already():
    batches = read(as_source(Refilled(dtype=np.float64)), 5)
    rows = np.concatenate([batch.inputs for batch in batches])
    np.testing.assert_array_equal(rows[:, 0], np.arange(20))


def test_a_subclass_of_arrays_is_read_as_the_array_that_it_is():
    class Noisy(np.ndarray):
        def __getitem__(self, key):
            return np.ndarray.__getitem__(self, key) + 1

    x = np.arange(6, dtype=np.float32).reshape(3, 2)
    (batch,) = read(as_source(x.view(Noisy)), 3)
    np.testing.assert_array_equal(batch.inputs, x)


def _h5py(folder, x):
    return h5py.File(folder / "x.h5", "w").create_dataset("x", data=x)


def _zarr(folder, x):
    return zarr.create_array(store=str(folder / "x.zarr"), data=x)


@pytest.mark.parametrize("make", [_h5py, _zarr])
def test_new_arrays_of_h5py_and_zarr_are_not_copied_again(make, tmp_path, monkeypatch):
    stored = make(tmp_path, np.arange(6, dtype=np.float32).reshape(3, 2))
    given = []
    slicing = type(stored).__getitem__

    def noted(self, rows):
        given.append(slicing(self, rows))
        return given[-1]

    monkeypatch.setattr(type(stored), "__getitem__", noted)
    (batch,) = read(as_source(stored), 3)
    assert np.shares_memory(batch.inputs, given[-1])


def test_slices_that_are_tensors():
    variable = tf.Variable(np.arange(6, dtype=np.float32).reshape(3, 2))
    batches = read(as_source(variable), 1)
    variable.assign_add(tf.ones((3, 2)))
    rows = np.concatenate([batch.inputs for batch in batches])
    np.testing.assert_array_equal(rows, np.arange(6).reshape(3, 2))
