import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute.transfers import Copier, InPlace

ROWS = np.arange(24).reshape(6, 4)


def spec(dtype, *shape):
    return tf.TensorSpec([None, *shape], dtype)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8", "bool", "int32"])
def test_copies_keep_their_values_when_other_rows_are_loaded(dtype):
    """A CPU shares the memory of a buffer, so the buffer must not be used again."""
    rows = ROWS.astype(tf.as_dtype(dtype).as_numpy_dtype)
    copier = Copier("CPU:1", [spec(dtype, 4)])
    (first,) = copier.copy(copier.load([rows]))
    zeros = np.zeros_like(rows[:5])
    (second,) = copier.copy(copier.load([zeros]))
    np.testing.assert_array_equal(first, rows)
    np.testing.assert_array_equal(second, zeros)


def test_leaves_that_are_alike_have_buffers_of_their_own():
    """TensorFlow merges equal constants of one graph."""
    copier = Copier("CPU:0", [spec("float32", 4)] * 2)
    loaded = copier.load([ROWS.astype(np.float32), -ROWS.astype(np.float32)])
    assert not np.shares_memory(*loaded.views)
    one, other = copier.copy(loaded)
    np.testing.assert_array_equal(one, ROWS)
    np.testing.assert_array_equal(other, -ROWS)


def test_leaves_that_have_no_buffer():
    names = np.array([b"a", b"bc", b""], object)
    lengths = np.ones((3, 2, 7), np.float32)
    specs = [spec("string"), spec("float32", 2, None), spec("float32", 0), spec("int8")]
    copier = Copier("CPU:0", specs)
    given = [names, lengths, np.zeros((3, 0), np.float32), np.arange(3, dtype=np.int8)]
    found = copier.copy(copier.load(given))
    for mine, theirs in zip(found, given, strict=True):
        np.testing.assert_array_equal(mine.numpy(), theirs)


def test_a_device_with_the_memory_of_the_host_needs_no_copy():
    direct = InPlace("CPU:0")
    (loaded,) = direct.load([ROWS])
    assert direct.copy([loaded])[0] is loaded
