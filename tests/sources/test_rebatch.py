"""Joining and cutting rows, for user batches of any sizes and shapes."""

import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given, settings
from hypothesis import strategies as st
from reading import read

from keras_mgpu_strategy.inputs import as_source

LENGTHS = st.lists(st.integers(0, 9), min_size=1, max_size=12)
# Rows per user batch, and the length of a row in it.
RUNS = st.lists(st.tuples(st.integers(0, 7), st.integers(1, 2)), min_size=1, max_size=9)


def _cut(x, lengths):
    ends = itertools.accumulate(lengths)
    return [x[end - length : end] for end, length in zip(ends, lengths, strict=True)]


@settings(deadline=None, max_examples=150)
@given(LENGTHS, st.integers(1, 10), st.data())
def test_rows_of_one_shape(lengths, batch_size, data):
    x = np.arange(2 * sum(lengths), dtype=np.float32).reshape(-1, 2)
    start = data.draw(st.integers(0, len(x)))
    source = as_source({"a": p, "b": p[:, 0] + 1} for p in _cut(x, lengths))
    batches = read(source, batch_size, start)
    sizes = [batch.num_rows for batch in batches]
    full, rest = divmod(len(x) - start, batch_size)
    assert sizes == [batch_size] * full + [rest] * (rest > 0)
    joined = [x[:0], *(batch.inputs["a"] for batch in batches)]
    np.testing.assert_array_equal(np.concatenate(joined), x[start:])
    for batch in batches:
        np.testing.assert_array_equal(batch.inputs["b"], batch.inputs["a"][:, 0] + 1)


@settings(deadline=None, max_examples=150)
@given(RUNS, st.integers(1, 6))
def test_the_grid_starts_again_where_the_shape_changes(runs, batch_size):
    widths = np.concatenate([[width] * count for count, width in runs]).astype(int)
    starts = itertools.accumulate((count for count, _ in runs), initial=0)
    parts = [
        np.repeat(np.arange(at, at + count, dtype=np.float32)[:, None], width, 1)
        for at, (count, width) in zip(starts, runs, strict=False)
    ]
    batches = read(as_source(iter(parts)), batch_size)
    assert sum(batch.num_rows for batch in batches) == len(widths)
    expected = []
    for _, group in itertools.groupby(widths):
        full, rest = divmod(len(list(group)), batch_size)
        expected += [batch_size] * full + [rest] * (rest > 0)
    assert [batch.num_rows for batch in batches] == expected
    for batch in batches:
        rows = np.arange(batch.start, batch.start + batch.num_rows)
        np.testing.assert_array_equal(batch.inputs[:, 0], rows)
        assert set(widths[rows]) == {batch.inputs.shape[1]}


def test_one_input_that_changes_its_shape_ends_the_batch_of_all():
    parts = [
        {"a": np.zeros((3, 2)), "b": np.zeros((3, 1))},
        {"a": np.zeros((3, 5)), "b": np.zeros((3, 1))},
    ]
    assert [b.num_rows for b in read(as_source(iter(parts)), 4)] == [3, 3]


def _arrays(*lengths):
    return [np.ones((length, 2), np.float32) for length in lengths]


def test_rows_that_were_made_for_a_batch_are_not_copied_again():
    parts = [part.astype(np.float64) for part in _arrays(8, 4)]
    batches = read(as_source(iter(parts)), 4)
    assert np.shares_memory(batches[0].inputs.base, batches[1].inputs.base)


@pytest.mark.parametrize("num_buffers", [1, 2, 3])
@pytest.mark.parametrize("wrap", [lambda x: x, lambda x: {"a": x}, memoryview])
def test_a_generator_that_fills_the_same_arrays_again(num_buffers, wrap):
    def generator():
        buffers = [np.empty((4, 1), np.float32) for _ in range(num_buffers)]
        for index in range(8):
            buffers[index % num_buffers][:, 0] = np.arange(4 * index, 4 * index + 4)
            yield wrap(buffers[index % num_buffers])

    for batch_size in (1, 2, 3, 4, 5, 8, 16, 32):
        batches = read(as_source(generator()), batch_size)
        rows = np.concatenate([tf.nest.flatten(batch.inputs)[0] for batch in batches])
        np.testing.assert_array_equal(rows[:, 0], np.arange(32))


def test_joined_rows_grow_with_what_is_read():
    parts = _arrays(*[1000] * 40)
    for index, part in enumerate(parts):
        part[:] = index
    (batch,) = read(as_source(iter(parts)), 10**15)
    np.testing.assert_array_equal(batch.inputs, np.concatenate(parts))


def test_memory_held_stays_small():
    alive = 0

    class Counted(np.ndarray):
        def __del__(self):
            nonlocal alive
            alive -= self.base is None

    def generator():
        nonlocal alive
        for _ in range(20):
            alive += 1
            part = np.ndarray.__new__(Counted, (5, 2), np.float32)
            part[:] = 0
            yield part
            del part
            assert alive <= 3

    assert sum(batch.num_rows for batch in as_source(generator()).batches(5)) == 100
