"""Looks for a better per-replica batch on the user's own first rows, run only once."""

import time
from collections.abc import Callable, Generator, Iterator

from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.types import HostBatch, InputBatch

_WORTH = 1.05
_LARGEST = 8192
_MOST_SHARE_OF_RUN = 0.1
_MOST_SECONDS_UNKNOWN = 2.0
_TIMED_BATCHES = 3

RunChunk = Callable[[InputBatch, BatchSize], HostBatch]


def tune(
    run_chunk: RunChunk,
    feed: Feed,
    batch: BatchSize,
    num_replicas: int,
    clock: StageClock,
) -> Iterator[HostBatch]:
    """Doubles the batch on the first replica while rows per second rise.

    Leaves the best size in `batch`. Stops if a trial would take more than a tenth of
    the time that the remaining rows need on all replicas, if memory runs out or is
    known to be too small for twice the rows, and at 8192.
    """
    best_size, best_rate = batch.size, 0.0
    while _has_enough_rows(feed, batch.size, num_replicas):
        size, began = batch.size, time.perf_counter()
        clock.add_trial(size)
        rate = yield from _trial(run_chunk, feed, batch)
        if batch.size < size:  # out of memory: smaller than ever tried
            return
        if rate is None or rate < _WORTH * best_rate:
            break
        best_size, best_rate = size, rate
        spent, larger = time.perf_counter() - began, min(2 * size, _LARGEST)
        is_too_large = batch.most is not None and larger > batch.most
        if size >= _LARGEST or is_too_large:
            break
        if not _is_worth_more(feed, rate * num_replicas, spent):
            break
        batch.change(larger)
    batch.change(best_size)


def _trial(
    run_chunk: RunChunk, feed: Feed, batch: BatchSize
) -> Generator[HostBatch, None, float | None]:
    """Rows per second at the batch's size; None if the rows ended first."""
    rate = None
    for batches in (1, _TIMED_BATCHES):  # the first one compiles
        began = time.perf_counter()
        chunk = feed.take(batches * batch.size)
        if chunk is None:
            return None
        result = run_chunk(chunk, batch)
        rate = chunk.num_rows / (time.perf_counter() - began)
        yield result
    return rate


def _has_enough_rows(feed: Feed, size: int, num_replicas: int) -> bool:
    left = feed.rows_left
    return feed.error is None and (left is None or left >= 16 * size * num_replicas)


def _is_worth_more(feed: Feed, rate: float, spent: float) -> bool:
    left = feed.rows_left
    if left is None:
        return spent < _MOST_SECONDS_UNKNOWN
    return spent < _MOST_SHARE_OF_RUN * left / rate
