"""Arithmetic of batch and chunk sizes, in rows, as docs/design.md names them."""

from keras_mgpu_strategy.system.integers import ceil_div, next_power_of_two

_TARGET_CHUNK_BYTES = 4 << 20
_TARGET_COPIED_BYTES = 32 << 20  # a small copy costs a GPU more than its bytes
_TARGET_BATCH_BYTES = 1 << 20
_MOST_OUTPUT_BYTES = 8 << 20
_MOST_COPIED_OUTPUT_BYTES = 64 << 20
_SMALLEST_GUESS = 32
_LARGEST_GUESS = 1024
_MOST_MICRO_BATCHES = 256
_CHUNKS_PER_REPLICA = 4


def per_replica(global_batch: int, num_replicas: int) -> int:
    """Per-replica batch of a global batch, rounded up so that none idles."""
    return ceil_div(global_batch, num_replicas)


def first_guess(row_bytes: int, num_rows: int | None, num_replicas: int) -> int:
    """Default per-replica batch: about 1 MiB, 32 to 1024 rows, at most a share.

    A share is rounded up to a power of two, so that few batch sizes are compiled.
    """
    by_bytes = next_power_of_two(_TARGET_BATCH_BYTES // max(row_bytes, 1))
    guess = min(max(by_bytes, _SMALLEST_GUESS), _LARGEST_GUESS)
    if num_rows is None:
        return guess
    return min(guess, next_power_of_two(ceil_div(num_rows, num_replicas)))


def most_chunk_rows(batch_size: int, row_bytes: int, *, is_copied: bool = False) -> int:
    """Rows of a power of two of micro-batches: about 4 MiB, or 32 if it `is_copied`."""
    target = _TARGET_COPIED_BYTES if is_copied else _TARGET_CHUNK_BYTES
    by_bytes = target // max(row_bytes * batch_size, 1)
    return batch_size * _power_of_two_below(min(by_bytes, _MOST_MICRO_BATCHES))


def most_batch_rows(output_bytes: int) -> int:
    """Rows of a batch where the host holds what it computes: 8 MiB of outputs."""
    by_bytes = _power_of_two_below(_MOST_OUTPUT_BYTES // max(output_bytes, 1))
    return max(by_bytes, _SMALLEST_GUESS)


def most_result_rows(result_bytes: float, *, is_copied: bool) -> int | None:
    """Rows of a chunk whose results take 8 MiB, or 64 if copied; None: no limit."""
    most = _MOST_COPIED_OUTPUT_BYTES if is_copied else _MOST_OUTPUT_BYTES
    return int(most / result_bytes) if result_bytes else None


def even_chunk_rows(
    batch_size: int, most_rows: int, num_rows: int | None, num_replicas: int
) -> int:
    """Rows per chunk: fewer if known rows are few, so that replicas end together."""
    if num_rows is None:
        return most_rows
    micro_batches = max(ceil_div(num_rows, batch_size), 1)
    most = most_rows // batch_size
    rounds = max(ceil_div(micro_batches, num_replicas * most), _CHUNKS_PER_REPLICA)
    return batch_size * ceil_div(micro_batches, num_replicas * rounds)


def even_round(
    batch_size: int, most_rows: int, rows_left: int | None, num_replicas: int
) -> int:
    """Rows of a replica's next chunk: a power of two of micro-batches, in its share."""
    most = most_rows // batch_size
    if rows_left is not None:
        most = min(most, ceil_div(rows_left, num_replicas * batch_size))
    return batch_size * _power_of_two_below(most)


def _power_of_two_below(number: int) -> int:
    return 1 << max(number.bit_length() - 1, 0)
