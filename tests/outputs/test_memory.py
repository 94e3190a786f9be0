import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mgpu_strategy.outputs.memory import collected
from keras_mgpu_strategy.types import HostBatch
from tests import helpers


def stored(parts, num_rows):
    stops = np.cumsum([len(tf.nest.flatten(part)[0]) for part in parts])
    starts = [0, *stops.tolist()]
    return collected(map(HostBatch, starts, parts), num_rows)


@settings(deadline=None)
@given(st.lists(st.integers(0, 5), min_size=1, max_size=8), st.booleans())
def test_rows_are_stored_in_order(sizes, is_known):
    rows = helpers.numbered_rows(sum(sizes))
    result = stored(helpers.in_batches(rows, sizes), len(rows) if is_known else None)
    np.testing.assert_array_equal(result, rows)
    assert result.dtype == rows.dtype


@pytest.mark.parametrize("num_rows", [3, None])
def test_structure_and_dtypes_are_kept(num_rows):
    def part(size):
        return {
            "b": (np.ones((size, 2), np.float16), np.arange(size)),
            "a": [np.array([b"x"] * size, object)],
        }

    result = stored([part(1), part(2)], num_rows)
    tf.nest.assert_same_structure(result, part(3))
    assert result["b"][0].shape == (3, 2)
    assert result["b"][0].dtype == np.float16
    assert result["b"][1].tolist() == [0, 0, 1]
    assert result["a"][0].tolist() == [b"x"] * 3


@pytest.mark.parametrize("num_rows", [0, None])
def test_no_rows_keep_shape_and_dtype(num_rows):
    result = stored([np.zeros((0, 4), np.int16)], num_rows)
    assert result.shape == (0, 4)
    assert result.dtype == np.int16


@pytest.mark.parametrize("num_rows", [4, None])
def test_what_is_stored_does_not_change_with_the_callers_array(num_rows):
    reused = np.zeros((2, 1))

    def batches():
        for start in (0, 2):
            reused[:] = start
            yield HostBatch(start, reused)
        reused[:] = -1

    assert collected(batches(), num_rows).ravel().tolist() == [0, 0, 2, 2]


def test_a_known_number_of_rows_is_written_in_place():
    assert len(stored([np.ones((2, 3)), np.ones((2, 3))], 4).base) == 4


def test_fewer_rows_than_announced_are_not_filled_up():
    assert stored([np.ones((2, 3))], num_rows=10).shape == (2, 3)


@pytest.mark.parametrize("start", [0, 1, 3])
def test_a_batch_out_of_order_is_an_error(start):
    message = f"begins at row {start}, but row 2 is the next"
    with pytest.raises(ValueError, match=message):
        collected([HostBatch(at, np.ones((2, 3))) for at in (0, start)], 10)


def test_no_batch_is_an_error():
    with pytest.raises(ValueError, match="There was no batch"):
        collected([], 3)


RAGGED = {
    "last axis": [(2, 3), (1, 4), (2, 1)],
    "first of two": [(2, 3, 5), (3, 4, 5)],
    "second of two": [(2, 5, 3), (1, 5, 4)],
    "both": [(2, 1, 3), (1, 2, 2), (3, 4, 4)],
    "middle of three": [(2, 4, 3, 2), (1, 4, 5, 2)],
    "first of three": [(1, 2, 3, 4), (2, 1, 3, 4)],
    "late change": [(2, 3), (2, 3), (2, 3), (1, 5)],
    "there and back": [(1, 3), (1, 5), (2, 3)],
    "an axis of length 0": [(2, 3), (2, 0), (1, 2)],
}


def of_keras(parts):
    """What Keras' own `predict` returns for these outputs."""
    rank = parts[0].ndim
    inputs = keras.Input([None] * (rank - 1), dtype=parts[0].dtype.name)
    identity = keras.Model(inputs, keras.layers.Identity()(inputs))
    dataset = tf.data.Dataset.from_generator(
        lambda: iter(parts),
        output_signature=tf.TensorSpec([None] * rank, parts[0].dtype),
    )
    # Keras warns at the end of a data set whose length it does not know.
    dataset = dataset.apply(tf.data.experimental.assert_cardinality(len(parts)))
    return identity.predict(dataset, verbose=0)


@pytest.mark.parametrize("shapes", RAGGED.values(), ids=RAGGED.keys())
def test_rows_that_cannot_be_stacked_come_as_from_keras(shapes):
    random = np.random.default_rng(0)
    parts = [random.random(shape, dtype=np.float32) for shape in shapes]
    expected = of_keras(parts)
    assert isinstance(expected, tf.RaggedTensor)
    for num_rows in (sum(len(part) for part in parts), None):
        result = stored(parts, num_rows)
        assert isinstance(result, tf.RaggedTensor)
        assert result.dtype == expected.dtype
        assert result.shape.as_list() == expected.shape.as_list()
        assert result.ragged_rank == expected.ragged_rank
        np.testing.assert_array_equal(result.flat_values, expected.flat_values)
        splits = zip(result.nested_row_splits, expected.nested_row_splits, strict=True)
        for mine, theirs in splits:
            np.testing.assert_array_equal(mine, theirs)


@pytest.mark.parametrize("dtype", [np.int32, np.int64, np.float16, np.float64])
def test_dtypes_of_ragged_results(dtype):
    parts = [np.arange(6, dtype=dtype).reshape(2, 3), np.ones((1, 4), dtype)]
    result, expected = stored(parts, None), of_keras(parts)
    assert result.to_list() == expected.to_list()
    assert result.dtype == dtype


def test_only_the_output_that_varies_is_ragged():
    parts = [
        {"varies": np.ones((2, length)), "fixed": np.ones((2, 3))} for length in (4, 5)
    ]
    result = stored(parts, 4)
    assert isinstance(result["varies"], tf.RaggedTensor)
    assert isinstance(result["fixed"], np.ndarray)
    assert result["fixed"].shape == (4, 3)


def test_parts_without_rows_make_nothing_ragged():
    result = stored([np.ones((0, 9)), np.ones((2, 3)), np.ones((0, 7))], None)
    assert isinstance(result, np.ndarray)
    assert result.shape == (2, 3)
