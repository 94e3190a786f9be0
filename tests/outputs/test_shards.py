"""Shards: each row in exactly one of them, wherever it is computed."""

import numpy as np
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from keras_mgpu_strategy.outputs.shards import Shard, shard_of

ROWS = st.integers(0, 10**7)
COUNTS = st.integers(1, 300)


@settings(deadline=None)
@given(ROWS, COUNTS)
@example(0, 1)
@example(0, 7)
@example(1, 7)
@example(6, 7)
@example(2**24 + 1, 64)
def test_all_rows_are_in_one_shard_each(num_rows, count):
    ranges = [Shard(index, count).rows(num_rows) for index in range(count)]
    assert ranges[0].start == 0
    assert ranges[-1].stop == num_rows
    for before, after in zip(ranges[:-1], ranges[1:], strict=True):
        assert before.start <= before.stop == after.start <= after.stop


@settings(deadline=None)
@given(ROWS, COUNTS)
def test_shards_begin_at_multiples_and_are_about_equally_long(num_rows, count):
    shards = [Shard(index, count) for index in range(count)]
    (multiple,) = {shard.row_multiple(num_rows) for shard in shards}
    assert multiple & (multiple - 1) == 0
    assert multiple == 1 or multiple * count * 64 <= num_rows
    lengths = [len(shard.rows(num_rows)) for shard in shards]
    for shard in shards:
        rows = shard.rows(num_rows)
        assert rows.start % multiple == 0 or rows.start == num_rows
        assert rows.stop % multiple == 0 or rows.stop == num_rows
    assert max(lengths) - min(lengths) <= 2 * multiple


# Rows, shards -> the multiple, and where each shard begins.
@pytest.mark.parametrize(
    ("num_rows", "count", "multiple", "starts"),
    [
        (10, 1, 1, [0]),
        (10, 4, 1, [0, 2, 5, 7]),
        (3, 5, 1, [0, 0, 1, 1, 2]),
        (127, 2, 1, [0, 63]),
        (256, 2, 2, [0, 128]),
        (1000, 2, 4, [0, 500]),
        (1_000_000, 3, 4096, [0, 331776, 667648]),
    ],
)
def test_known_ranges(num_rows, count, multiple, starts):
    assert Shard(0, count).row_multiple(num_rows) == multiple
    assert [Shard(i, count).rows(num_rows).start for i in range(count)] == starts


def test_names():
    assert Shard(2, 8).name == "shard-00002-of-00008"
    assert Shard(2, 8).numbers == "00002-of-00008"
    assert len({Shard(i, 10**6).name for i in (0, 1, 10**5, 10**6 - 1)}) == 4


@pytest.mark.parametrize("pair", [(0.0, 1), (0, "2"), (True, 2), (None, 1)])
def test_other_types_are_refused(pair):
    with pytest.raises(TypeError, match=r"shard=\(.*Expected two integers"):
        shard_of(pair)


@pytest.mark.parametrize("pair", [3, "01", (1,), (0, 1, 2), {0: 1, 1: 2}])
def test_what_is_not_a_pair_is_refused(pair):
    with pytest.raises(TypeError, match=r"shard=.*Expected two integers"):
        shard_of(pair)


@pytest.mark.parametrize("pair", [(1, 3), [1, 3], (np.int64(1), np.uint8(3))])
def test_integers_of_any_type_are_accepted(pair):
    assert shard_of(pair) == Shard(1, 3)
    assert shard_of(pair).rows(10) == range(3, 6)


@pytest.mark.parametrize(("index", "count"), [(-1, 2), (2, 2), (0, 0), (0, -1)])
def test_numbers_out_of_range_are_refused(index, count):
    with pytest.raises(ValueError, match=r"Expected the first to be one of 0 to"):
        Shard(index, count)
