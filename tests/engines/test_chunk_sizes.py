"""How many rows a replica takes at a time."""

import pytest

from keras_mgpu_strategy.engines.context import ChunkSizes

MOST = 1 << 20


@pytest.mark.parametrize(
    ("seconds_per_row", "batch_size", "rows_left", "rows"),
    [
        (None, 32, None, 32),  # speed unknown: one micro-batch
        (1e-5, 32, None, 93 * 32),  # 30 ms hold 93.75 of them
        (1.0, 32, None, 32),  # slow: never less than one
        (1e-9, 32, None, MOST),  # fast: the cap
        (1e-5, 32, 64 * 32, 16 * 32),  # the end is near: a quarter, R = 2
        (1e-5, 32, 3, 32),
    ],
)
def test_rows_of_a_chunk(seconds_per_row, batch_size, rows_left, rows):
    sizes = ChunkSizes(num_replicas=2)
    if seconds_per_row is not None:
        sizes.record(100, 100 * seconds_per_row)
    assert sizes.chunk_rows(batch_size, MOST, rows_left) == rows


def test_one_slow_chunk_does_not_change_much():
    sizes = ChunkSizes(num_replicas=1)
    for _ in range(5):
        sizes.record(10, 10e-5)
    before = sizes.chunk_rows(1, MOST, None)
    sizes.record(10, 20e-5)
    assert 0.7 * before < sizes.chunk_rows(1, MOST, None) < before


def test_calls_that_wait_for_each_other_count_once():
    sizes = ChunkSizes(num_replicas=2)
    # Two chunks in flight on a device that takes 20 ms for each.
    calls = [(0.00, 0.02), (0.00, 0.04), (0.02, 0.06), (0.04, 0.08)]
    assert [sizes.busy(0, *call) for call in calls] == pytest.approx([0.02] * 4)
    assert sizes.busy(1, 0.0, 0.08) == pytest.approx(0.08)  # another device
    assert sizes.busy(0, 0.10, 0.12) == pytest.approx(0.02)  # after a pause
    assert sizes.busy(0, 0.10, 0.11) == 0.0  # ended before the previous one
