import itertools

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import given
from hypothesis import strategies as st

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.types import HostBatch, RowMarks
from tests import helpers
from tests.messages import exactly

SIZES = st.lists(st.integers(1, 7), min_size=1, max_size=12)


def cut(sizes, start=0):
    rows = helpers.numbered_rows(sum(sizes)) + np.float32(start)
    return list(helpers.host_batches(rows, sizes, start))


def sizes_of(batches):
    return [batch.num_rows for batch in batches]


class TestToHost:
    def test_padding_is_trimmed_in_every_output(self):
        outputs = {"a": tf.range(6), "b": [tf.zeros((6, 2, 3))]}
        batch = gather.to_host(outputs, start=40, num_rows=4, padded_rows=6)
        assert (batch.start, batch.num_rows, batch.stop) == (40, 4, 44)
        assert batch.outputs["a"].tolist() == [0, 1, 2, 3]
        assert batch.outputs["b"][0].shape == (4, 2, 3)
        assert all(type(a) is np.ndarray for a in tf.nest.flatten(batch.outputs))

    def test_no_rows_keep_shape_and_dtype(self):
        batch = gather.to_host(tf.zeros((3, 5), tf.float16), 0, 0, padded_rows=3)
        assert batch.outputs.shape == (0, 5)
        assert batch.outputs.dtype == np.float16

    def test_strings_are_bytes(self):
        batch = gather.to_host(tf.constant(["a", "ü"]), 0, 2, padded_rows=2)
        assert batch.outputs.tolist() == [b"a", "ü".encode()]

    @pytest.mark.parametrize("shape", [(), (5, 2), (7, 2), (1, 6)])
    def test_another_number_of_rows_is_an_error(self, shape):
        message = (
            f"The model gave an output of shape {shape} for 6 rows, expected "
            "(6, ...). Each output needs one row per input row; leave outputs without "
            "a batch axis out of the model."
        )
        with pytest.raises(ValueError, match=exactly(message)):
            gather.to_host([tf.range(6), tf.zeros(shape)], 0, 4, padded_rows=6)


class TestInOrder:
    @given(SIZES, st.integers(0, 100), st.randoms(use_true_random=False))
    def test_any_order_of_arrival(self, sizes, start, random):
        batches = cut(sizes, start)
        arriving = random.sample(batches, len(batches))
        assert list(gather.in_order(arriving, start)) == batches

    def test_a_batch_leaves_as_soon_as_those_before_it_have(self):
        first, second, third = cut([2, 2, 2])
        arrived = []

        def arriving():
            for batch in (second, first, third):
                arrived.append(batch)
                yield batch

        ordered = gather.in_order(arriving(), 0)
        assert next(ordered) is first
        assert next(ordered) is second
        assert arrived == [second, first]

    def test_a_batch_without_rows_ends_nothing_and_repeats_nothing(self):
        empty = HostBatch(3, np.zeros((0, 2), np.float32))
        rest = HostBatch(3, np.ones((2, 2), np.float32))
        assert list(gather.in_order([empty], 3)) == [empty]
        assert list(gather.in_order([empty, rest], 3)) == [empty, rest]

    def test_a_hole_is_an_error(self):
        first, _, third = cut([2, 2, 2])
        ordered = gather.in_order([first, third], 0)
        assert next(ordered) is first
        message = "Rows from 2 on are missing before 4."
        with pytest.raises(RuntimeError, match=exactly(message)):
            next(ordered)

    def test_of_several_holes_the_first_is_named(self):
        batches = cut([2] * 5)
        message = "Rows from 0 on are missing before 2."
        with pytest.raises(RuntimeError, match=exactly(message)):
            list(gather.in_order([batches[4], batches[1], batches[3]], 0))


class TestJoin:
    @given(SIZES, st.integers(0, 100))
    def test_rows_follow_each_other(self, sizes, start):
        parts = cut(sizes, start)
        batch = gather.join(parts)
        assert batch.start == start
        rows = helpers.numbered_rows(sum(sizes)) + np.float32(start)
        np.testing.assert_array_equal(batch.outputs, rows)

    def test_structure_is_kept(self):
        parts = [
            HostBatch(n, {"a": np.array([n]), "b": (np.ones((1, n0)),)})
            for n, n0 in ((0, 2), (1, 2))
        ]
        outputs = gather.join(parts).outputs
        assert outputs["a"].tolist() == [0, 1]
        assert outputs["b"][0].shape == (2, 2)

    def test_a_single_batch_is_not_copied(self):
        (batch,) = cut([3])
        assert gather.join([batch]) is batch


class TestSplit:
    @pytest.mark.parametrize("num_rows", [0, 2, 5])
    def test_both_sides_keep_their_rows_without_a_copy(self, num_rows):
        rows = helpers.numbered_rows(5)
        head, rest = gather.split(HostBatch(7, {"a": rows, "b": [rows]}), num_rows)
        assert (head.start, rest.start) == (7, 7 + num_rows)
        for side, expected in ((head, rows[:num_rows]), (rest, rows[num_rows:])):
            for array in (side.outputs["a"], side.outputs["b"][0]):
                np.testing.assert_array_equal(array, expected)
                assert array.base is rows


class TestResplit:
    @given(SIZES, st.lists(st.integers(0, 9), max_size=12), st.integers(0, 50))
    def test_batches_have_the_sizes_asked_for(self, sizes, wanted, start):
        total = sum(sizes)
        enough = [*wanted, total]  # so that no row is left over
        sizes_left = iter(enough)
        result = list(gather.resplit(cut(sizes, start), lambda: next(sizes_left, None)))
        rows = helpers.numbered_rows(total) + np.float32(start)
        np.testing.assert_array_equal(helpers.joined(result, start), rows)
        full = list(
            itertools.takewhile(lambda s: s <= total, itertools.accumulate(wanted))
        )
        assert sizes_of(result)[: len(full)] == wanted[: len(full)]

    @given(SIZES, st.integers(1, 9))
    def test_equal_sizes_leave_one_short_batch_at_the_end(self, sizes, size):
        result = sizes_of(gather.resplit(cut(sizes), lambda: size))
        full, rest = divmod(sum(sizes), size)
        assert [s for s in result if s] == [size] * full + [rest] * bool(rest)

    def test_leading_and_trailing_empty_batches(self):
        sizes = iter([0, 0, 3, 0, 2, 0, 0])
        result = gather.resplit(cut([4, 1]), lambda: next(sizes, None))
        assert sizes_of(result) == [0, 0, 3, 0, 2, 0, 0]

    def test_no_rows_at_all(self):
        sizes = iter([0, 0])
        empty = HostBatch(0, np.zeros((0, 3), np.int8))
        first, second = gather.resplit([empty], lambda: next(sizes, None))
        for batch in (first, second):
            assert batch.outputs.shape == (0, 3)
            assert batch.outputs.dtype == np.int8

    def test_sizes_that_become_known_with_the_rows(self):
        sizes = []

        def arriving():
            for batch in cut([5, 5]):
                sizes.extend([2, 3])
                yield batch

        result = gather.resplit(arriving(), lambda: sizes.pop(0) if sizes else None)
        assert sizes_of(result) == [2, 3, 2, 3]

    def test_sizes_that_become_known_when_the_rows_have_ended(self):
        sizes = []

        def arriving():
            yield from cut([4, 3])
            sizes.extend([2, 0, 5])

        result = gather.resplit(arriving(), lambda: sizes.pop(0) if sizes else None)
        assert sizes_of(result) == [2, 0, 5]

    def test_a_batch_leaves_before_the_next_is_asked_for(self):
        batches = iter(cut([4, 4, 4]))
        result = gather.resplit(batches, lambda: 2)
        next(result), next(result)
        assert next(batches).start == 4

    def test_a_change_of_shape_ends_a_batch(self):
        batches = [
            HostBatch(0, np.zeros((3, 5))),
            HostBatch(3, np.ones((4, 6))),
        ]
        result = list(gather.resplit(batches, lambda: 2))
        shapes = [batch.outputs.shape for batch in result if batch.num_rows]
        assert shapes == [(2, 5), (1, 5), (2, 6), (2, 6)]
        assert [batch.start for batch in result if batch.num_rows] == [0, 2, 3, 5]


def named(start, names):
    rows = np.arange(start, start + len(names))
    return HostBatch(start, rows, RowMarks(names=names))


@pytest.mark.parametrize("count", [0, 2, 5])
def test_marks_are_split_with_their_rows(count):
    first, rest = gather.split(named(7, "abcde"), count)
    for part, rows in ((first, slice(0, count)), (rest, slice(count, 5))):
        assert part.start == 7 + rows.start
        np.testing.assert_array_equal(part.outputs, np.arange(7, 12)[rows])
        assert part.marks.names == "abcde"[rows]


@pytest.mark.parametrize(("start", "left"), [(0, "abc"), (4, "abc"), (6, "c"), (9, "")])
def test_rows_from_an_index_onwards(start, left):
    found = gather.rows_from(named(4, "abc"), start)
    assert (found.num_rows, found.marks.names) == (len(left), left)
    assert not left or found.start == max(start, 4)
