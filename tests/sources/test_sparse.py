"""Sparse matrices and tensors are made dense, a chunk of rows at a time."""

import numpy as np
import pytest
import scipy.sparse
import scipy.sparse.linalg
import tensorflow as tf
from reading import read, rows

from keras_mgpu_strategy.inputs import as_source

MATRICES = [
    kind + suffix
    for kind in ["bsr", "coo", "csc", "csr", "dia", "dok", "lil"]
    for suffix in ["_array", "_matrix"]
]


def _dense(*shape, dtype="float32", filled=0.2):
    rng = np.random.default_rng(0)
    values = rng.integers(1, 100, shape).astype(dtype)
    return np.where(rng.random(shape) < filled, values, np.zeros((), dtype))


def test_matrices():
    dense = _dense(11, 6)
    for kind in MATRICES:
        source = as_source(getattr(scipy.sparse, kind)(dense))
        assert source.num_rows == 11
        assert source.spec == tf.TensorSpec([None, 6], tf.float32)
        for start in [0, 1, 4, 11]:
            found = [dense[:0], *(b.inputs for b in read(source, 4, start))]
            np.testing.assert_array_equal(np.concatenate(found), dense[start:], kind)


@pytest.mark.parametrize("shape", [(11,), (11, 6), (11, 2, 3), (5, 1, 2, 2)])
def test_tensors(shape):
    dense = _dense(*shape)
    source = as_source(tf.sparse.from_dense(dense))
    assert source.num_rows == shape[0]
    assert source.spec == tf.TensorSpec([None, *shape[1:]], tf.float32)
    for start in [0, 1, 4]:
        np.testing.assert_array_equal(rows(source, 3, start), dense[start:])


def test_strings():
    x = tf.SparseTensor([[0, 1], [2, 0]], ["a", "bé"], (3, 2))
    source = as_source(x)
    assert source.spec == tf.TensorSpec([None, 2], tf.string)
    expected = [[b"", b"a"], [b"", b""], ["bé".encode(), b""]]
    assert rows(source, 2).tolist() == expected


@pytest.mark.parametrize("shape", [(0, 3), (4, 3)])
@pytest.mark.parametrize("convert", [scipy.sparse.csr_array, tf.sparse.from_dense])
def test_no_values(shape, convert):
    source = as_source(convert(np.zeros(shape, "float32")))
    assert source.num_rows == shape[0]
    assert sum(b.inputs.size for b in read(source, 3)) == shape[0] * 3
    assert not any(b.inputs.any() for b in read(source, 3))


def test_duplicate_values_of_a_matrix_add_up():
    x = scipy.sparse.coo_array(([1.0, 2.0], ([1, 1], [0, 0])), shape=(3, 2))
    assert rows(as_source(x)).tolist() == [[0, 0], [3, 0], [0, 0]]


def test_indices_in_any_order():
    x = tf.SparseTensor([[2, 0], [0, 1], [1, 1]], [1.0, 2.0, 3.0], (3, 2))
    assert rows(as_source(x), 2).tolist() == [[0, 2], [0, 3], [1, 0]]


def test_nests_of_sparse_and_dense():
    dense = _dense(9, 4)
    x = {"a": scipy.sparse.csc_array(dense), "b": dense, "c": tf.sparse.eye(9, 2)}
    batches = read(as_source(x), 4)
    for name, expected in (("a", dense), ("b", dense), ("c", np.eye(9, 2))):
        got = np.concatenate([batch.inputs[name] for batch in batches])
        np.testing.assert_array_equal(got, expected)


def test_more_rows_than_memory():
    rows_of_a_petabyte, columns = 10**7, 10**7
    x = scipy.sparse.csr_array(
        ([1.0], ([rows_of_a_petabyte - 1], [5])), shape=(rows_of_a_petabyte, columns)
    )
    (last,) = read(as_source(x), 3, rows_of_a_petabyte - 1)
    assert last.inputs[0, 5] == 1.0 and last.inputs.sum() == 1.0


@pytest.mark.parametrize("convert", [scipy.sparse.coo_matrix, tf.sparse.from_dense])
def test_batches(convert):
    dense = _dense(10, 3)
    batches = [convert(part) for part in np.split(dense, [4, 5])]
    np.testing.assert_array_equal(rows(as_source(iter(batches)), 3), dense)


def test_data_sets():
    dense = _dense(10, 3)
    dataset = tf.data.Dataset.from_tensor_slices(tf.sparse.from_dense(dense)).batch(4)
    source = as_source(dataset)
    assert source.spec == tf.TensorSpec([None, 3], tf.float32)
    np.testing.assert_array_equal(rows(source, 3), dense)


@pytest.mark.parametrize(
    ("indices", "message"),
    [
        ([[0, 1], [3, 0]], r"with a value at \[3, 0\], expected indices within"),
        ([[0, 2], [1, 0]], r"with a value at \[0, 2\], expected indices within"),
        ([[-1, 0], [1, 0]], r"with a value at \[-1, 0\]"),
        ([[1, 0], [1, 0]], r"with two values at \[1, 0\], expected each index once"),
    ],
)
def test_indices_that_are_wrong(indices, message):
    x = tf.SparseTensor(np.array(indices, np.int64), [1.0, 2.0], (3, 2))
    with pytest.raises(ValueError, match=rf"^x\['a'\] is a .* {message}"):
        as_source({"a": x})


def test_a_matrix_of_other_axes():
    x = scipy.sparse.coo_array(np.ones(4))
    with pytest.raises(ValueError, match=r"coo_array of shape \(4,\), .*x.toarray\(\)"):
        as_source(x)


def test_an_operator_is_not_a_matrix():
    with pytest.raises(TypeError, match="Cannot read rows from .*Operator"):
        as_source(scipy.sparse.linalg.aslinearoperator(np.eye(3)))
