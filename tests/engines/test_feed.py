import itertools

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mgpu_strategy.engines.feed import Feed, padded
from keras_mgpu_strategy.inputs import as_source
from tests import helpers


def chunks_of(feed, most_rows=4):
    return list(iter(lambda: feed.take(most_rows), None))


def rows_of(chunks):
    return np.concatenate([chunk.inputs[: chunk.num_rows] for chunk in chunks])


@given(
    num_rows=st.integers(0, 60),
    block_rows=st.integers(1, 30),
    most_rows=st.lists(st.integers(1, 12), min_size=1),
    data=st.data(),
)
def test_every_row_leaves_once_in_order(num_rows, block_rows, most_rows, data):
    start = data.draw(st.integers(0, num_rows))
    rows = helpers.numbered_rows(num_rows)
    feed = Feed(as_source(rows), block_rows, start)
    position = start
    chunks = []
    for most in itertools.cycle(most_rows):
        assert feed.rows_left == num_rows - position
        chunk = feed.take(most)
        if chunk is None:
            break
        chunks.append(chunk)
        assert chunk.start == position
        assert chunk.num_rows <= most
        assert chunk.num_rows > 0 or position == num_rows == start
        position += chunk.num_rows
    np.testing.assert_array_equal(rows_of(chunks), rows[start:])


@given(st.integers(1, 40), st.integers(1, 9))
def test_padding_fills_up_whole_micro_batches(num_rows, batch_size):
    rows = helpers.numbered_rows(num_rows)
    chunk = Feed(as_source(rows), block_rows=100).take(100)
    (whole,) = padded(chunk, batch_size)
    assert len(whole) % batch_size == 0
    assert 0 <= len(whole) - num_rows < batch_size
    np.testing.assert_array_equal(whole[:num_rows], rows)
    assert set(whole[num_rows:, 0]) <= {num_rows - 1}


def test_a_chunk_of_whole_micro_batches_is_not_copied():
    rows = helpers.numbered_rows(8)
    chunk = Feed(as_source(rows), block_rows=8).take(6)
    assert np.shares_memory(padded(chunk, 3)[0], rows)


def test_every_input_is_filled_up():
    x = {"a": helpers.numbered_rows(2), "b": np.array([[b"x"], [b"why"]])}
    chunk = Feed(as_source(x), block_rows=8).take(8)
    a, b = padded(chunk, 4)
    assert a[:, 0].tolist() == [0, 1, 1, 1]
    assert b[:, 0].tolist() == [b"x", b"why", b"why", b"why"]


@pytest.mark.parametrize("num_rows", [0, 5])
def test_no_rows_give_one_chunk_of_padding(num_rows):
    source = as_source(np.ones((num_rows, 4, 2), np.int32))
    (chunk,) = chunks_of(Feed(source, block_rows=6, start=num_rows))
    assert (chunk.start, chunk.num_rows) == (num_rows, 0)
    (whole,) = padded(chunk, 3)
    assert whole.shape == (3, 4, 2)
    assert whole.dtype == np.int32


def test_rows_of_another_shape_begin_a_chunk():
    batches = iter([np.ones((3, 5)), np.ones((2, 7))])
    feed = Feed(as_source(batches), block_rows=16)
    assert feed.rows_left is None
    first, second = chunks_of(feed, most_rows=16)
    assert (first.start, first.num_rows, first.inputs.shape) == (0, 3, (3, 5))
    assert (second.start, second.num_rows, second.inputs.shape) == (3, 2, (2, 7))
