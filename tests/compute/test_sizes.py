import pytest
from hypothesis import given
from hypothesis import strategies as st

from keras_mgpu_strategy.compute.sizes import (
    even_chunk_rows,
    even_round,
    first_guess,
    most_batch_rows,
    most_chunk_rows,
    most_result_rows,
    per_replica,
)
from keras_mgpu_strategy.system.integers import ceil_div, next_power_of_two

KIB, MIB = 1 << 10, 1 << 20


@pytest.mark.parametrize(
    ("dividend", "divisor", "quotient"),
    [
        (0, 3, 0),
        (1, 3, 1),
        (3, 3, 1),
        (4, 3, 2),
        (6, 3, 2),
        (10**18 + 1, 10, 10**17 + 1),
    ],
)
def test_ceil_div(dividend, divisor, quotient):
    assert ceil_div(dividend, divisor) == quotient


@pytest.mark.parametrize(
    ("number", "power"),
    [
        (-1, 1),
        (0, 1),
        (1, 1),
        (2, 2),
        (3, 4),
        (4, 4),
        (5, 8),
        (1024, 1024),
        (1025, 2048),
    ],
)
def test_next_power_of_two(number, power):
    assert next_power_of_two(number) == power


@pytest.mark.parametrize(
    ("global_batch", "num_replicas", "expected"),
    [
        (32, 1, 32),
        (32, 4, 8),
        (33, 4, 9),  # rounded up: 9 rows on each, never fewer than asked for
        (1, 4, 1),  # fewer rows than replicas: one row is the least
        (3, 2, 2),
    ],
)
def test_per_replica(global_batch, num_replicas, expected):
    assert per_replica(global_batch, num_replicas) == expected


@pytest.mark.parametrize(
    ("row_bytes", "num_rows", "num_replicas", "expected"),
    [
        (4 * KIB, None, 1, 256),  # 1 MiB of input
        (4 * KIB, None, 8, 256),  # whatever the number of replicas
        (4, None, 1, 1024),  # tiny rows: the most
        (0, None, 1, 1024),  # rows without a byte
        (50 * MIB, None, 1, 32),  # huge rows: the least
        (3 * KIB, None, 1, 512),  # 341 rows fit: the next power of two
        (4 * KIB, 10_000, 2, 256),  # enough rows for each replica
        (4 * KIB, 100, 1, 128),  # fewer rows than the guess: their power of two
        (4 * KIB, 100, 4, 32),  # 25 rows for each replica
        (4 * KIB, 5, 4, 2),
        (50 * MIB, 3, 1, 4),  # below the least guess if there are so few rows
        (4 * KIB, 1, 4, 1),
        (4 * KIB, 0, 4, 1),  # no rows: one padded row
    ],
)
def test_first_guess(row_bytes, num_rows, num_replicas, expected):
    assert first_guess(row_bytes, num_rows, num_replicas) == expected


@pytest.mark.parametrize(
    ("batch_size", "row_bytes", "micro_batches"),
    [
        (256, 4 * KIB, 4),  # 4 MiB of input
        (256, 4 * KIB + 1, 2),  # 3 would fit: a power of two below
        (32, 50 * MIB, 1),  # one batch is more than 4 MiB: one at least
        (1, 1, 256),  # tiny batches: the most
        (1, 0, 256),  # rows without a byte
        (48, 4 * KIB, 16),  # whole micro-batches, whatever their size
    ],
)
def test_most_chunk_rows(batch_size, row_bytes, micro_batches):
    assert most_chunk_rows(batch_size, row_bytes) == batch_size * micro_batches


def test_outputs_bound_a_batch():
    assert most_batch_rows(16 * KIB) == 512  # 8 MiB
    assert most_batch_rows(16 * KIB + 1) == 256  # a power of two below
    assert most_batch_rows(50 * MIB) == 32  # no fewer than for inputs
    assert most_batch_rows(0) > 8192  # rows without a byte


def test_chunks_that_are_copied_are_larger():
    assert most_chunk_rows(256, 4 * KIB, is_copied=True) == 256 * 32  # 32 MiB
    assert most_chunk_rows(1, 1, is_copied=True) == 256


@pytest.mark.parametrize(
    ("batch_size", "most_rows", "num_rows", "num_replicas", "expected"),
    [
        (8, 512, None, 4, 512),  # unknown: the most
        (8, 512, 10**6, 4, 512),  # very many rows: nearly the most
        (1, 64, 64, 1, 16),  # few rows: four chunks for each replica
        (1, 64, 64, 4, 4),
        (1, 64, 16, 4, 1),
        (1, 64, 3, 4, 1),  # fewer rows than replicas
        (8, 64, 1, 4, 8),  # never less than a micro-batch
        (8, 64, 0, 4, 8),  # no rows: one chunk of padding
        (1, 64, 500, 1, 63),  # eight chunks of 63 rather than seven and a bit of 64
        (8, 8, 10**6, 2, 8),  # chunks of one micro-batch stay so
    ],
)
def test_even_chunk_rows(batch_size, most_rows, num_rows, num_replicas, expected):
    rows = even_chunk_rows(batch_size, most_rows, num_rows, num_replicas)
    assert rows == expected
    assert type(rows) is int  # it becomes a shape, which a float cannot


@pytest.mark.parametrize(
    ("batch_size", "most_rows", "rows_left", "num_replicas", "expected"),
    [
        (8, 512, None, 4, 512),
        (8, 8 * 13, None, 4, 8 * 8),  # a power of two of micro-batches
        (8, 512, 8 * 9, 4, 16),  # three each are left: two now, one then
        (8, 512, 8 * 4, 4, 8),
        (8, 512, 1, 4, 8),  # never less than a micro-batch
        (8, 512, 0, 4, 8),
    ],
)
def test_even_round(batch_size, most_rows, rows_left, num_replicas, expected):
    assert even_round(batch_size, most_rows, rows_left, num_replicas) == expected


@given(
    st.integers(1, 4096),
    st.integers(0, 1 << 40),
    st.none() | st.integers(0, 1 << 40),
    st.integers(1, 64),
)
def test_chunks_are_bounded(batch_size, row_bytes, num_rows, num_replicas):
    most = most_chunk_rows(batch_size, row_bytes)
    chunk = even_chunk_rows(batch_size, most, num_rows, num_replicas)
    assert most % batch_size == chunk % batch_size == 0
    assert batch_size <= chunk <= most
    assert most == batch_size or most * row_bytes <= 4 * MIB
    if num_rows is not None and chunk > batch_size:
        # No replica is left without work while others have several micro-batches.
        assert ceil_div(num_rows, chunk) >= num_replicas


@given(st.integers(0, 1 << 40), st.none() | st.integers(0, 1 << 40), st.integers(1, 64))
def test_first_guess_is_a_power_of_two(row_bytes, num_rows, num_replicas):
    guess = first_guess(row_bytes, num_rows, num_replicas)
    assert 1 <= guess <= 1024
    assert guess & (guess - 1) == 0


def test_results_bound_a_chunk():
    assert most_result_rows(1.5 * KIB, is_copied=False) == 8 * MIB * 2 // (3 * KIB)
    assert most_result_rows(4 * KIB, is_copied=True) == 64 * MIB // (4 * KIB)
    assert most_result_rows(0, is_copied=True) is None
