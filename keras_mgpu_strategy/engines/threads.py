"""Threads for each device, each taking the next chunk when its device is free.

No replica waits for another; `engines.track` orders and limits a device's chunks. A
chunk that fails on a replica is run again, if it can be, by the thread that has it.
"""

import functools
import time
from collections.abc import Callable, Generator, Iterator

from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.choosing import Search, has_enough_rows, most_seconds
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.engines.interface import ChunkRunner, StoppedWithin
from keras_mgpu_strategy.engines.running import Engine
from keras_mgpu_strategy.engines.track import Backpressure, Track
from keras_mgpu_strategy.engines.trials import Trials
from keras_mgpu_strategy.engines.worker_threads import at_fault, collect
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.system.environment import num_cores
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import HostBatch, InputBatch

_SECONDS_TO_START_THREADS = 0.004
_WORTH = 1.05
_LARGEST = 8192
_TIMED_BATCHES = 3
RunChunk = Callable[[InputBatch, BatchSize], HostBatch]


class ThreadsEngine(Engine):
    """Runs each replica's step in `in_flight + ahead` threads of its own."""

    def __init__(self, context: Context, chunks: ChunkRunner):
        super().__init__(context, chunks.begin_run)
        self.searches = context.searches
        self._chunks = chunks
        self._num_devices = len(context.devices)
        self._tracks = [Track(context.in_flight) for _ in context.devices]

    def _batches(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Generator[HostBatch, None, None]:
        self._context.clock.start()
        stopped: StoppedWithin | None = None
        try:
            yield from self._run_all(feed, batch, most_rows)
        except StoppedWithin as error:
            stopped = error  # raised below, so it is not chained to the user's error
        if stopped is not None:
            yield stopped.results
            raise stopped.error

    def _run_all(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Iterator[HostBatch]:
        context = self._context
        if context.tunes and not context.pads_batches:
            yield from tune(
                self._run_first, feed, batch, self._num_devices, context.clock
            )
        # While it is unknown how much memory a batch takes, one runs alone.
        if batch.plan.is_measured and (chunk := feed.take(batch.size)) is not None:
            yield self._run_first(chunk, batch)
        if self._is_small(feed.rows_left, batch.size):
            while (chunk := feed.take(most_rows)) is not None:
                yield self._run_first(chunk, batch)
        else:
            yield from self._run_in_threads(feed, batch, most_rows)
        if feed.error is not None:
            raise feed.error

    def _is_small(self, rows_left: int | None, batch_size: int) -> bool:
        """Whether threads would cost more than they save."""
        if rows_left is None:
            return False
        seconds = self._context.chunk_sizes.seconds(rows_left)
        return rows_left <= batch_size or seconds < _SECONDS_TO_START_THREADS

    def _run_first(self, chunk: InputBatch, batch: BatchSize) -> HostBatch:
        return self._chunks.run(chunk, batch, 0, self._tracks[0])

    def _run_in_threads(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Iterator[HostBatch]:
        context, num_devices = self._context, self._num_devices
        threads_each = context.in_flight + context.ahead
        if context.preprocess is not None:  # on as many cores as there are
            threads_each = max(threads_each, ceil_div(num_cores(), num_devices))
        num_threads = num_devices * threads_each
        if feed.rows_left is not None:
            num_threads = min(num_threads, ceil_div(feed.rows_left, batch.size))

        pressure = Backpressure(
            lambda: context.most_rows_ahead(batch.size, num_threads)
        )

        search = None
        if context.searches:
            trials = functools.partial(
                Trials, context, batch, self._chunks, self._tracks
            )
            search = Search(context, feed, batch, most_rows, trials)

        def work(number: int, put_result: Callable[[HostBatch], None]) -> None:
            own = (feed, batch, most_rows, number % num_devices)

            def put(ran: HostBatch) -> None:
                with context.clock.stage("write"):
                    put_result(ran)

            while (ran := self._take_and_run(*own, pressure)) is not None:
                put(ran)
                # Any thread of the first replica: one alone may get few of the chunks.
                if search and number % num_devices == 0 and search.begins():
                    search.run(put)

        return collect(work, num_threads, feed, room=num_threads + 1)

    def _take_and_run(
        self,
        feed: Feed,
        batch: BatchSize,
        most_rows: int,
        replica: int,
        pressure: Backpressure,
    ) -> HostBatch | None:
        context, track = self._context, self._tracks[replica]

        def is_ending() -> bool:
            left = feed.rows_left
            return left is not None and left <= 2 * self._num_devices * batch.size

        with track.chunk(is_ending):
            with context.clock.stage("input"):
                most = min(batch.plan.chunk_rows or most_rows, most_rows)
                sizes = (batch.size, most, feed.rows_left)
                chunk = feed.take(context.chunk_rows(*sizes))
            if chunk is None:
                return None
            with at_fault(chunk), pressure.admitted(chunk.start):
                return self._chunks.run(chunk, batch, replica, track)


def tune(
    run_chunk: RunChunk,
    feed: Feed,
    batch: BatchSize,
    num_replicas: int,
    clock: StageClock,
) -> Iterator[HostBatch]:
    """Doubles the batch while rows a second rise, in a tenth of the time, to 8192."""
    best_size, best_rate = batch.size, 0.0
    while has_enough_rows(feed, batch.size, num_replicas):
        size, began = batch.size, time.perf_counter()
        clock.add_trial(size)
        rate = yield from _trial(run_chunk, feed, batch)
        if batch.size < size:  # out of memory: smaller than ever tried
            return
        if rate <= _WORTH * best_rate:
            break
        best_size, best_rate = size, rate
        spent, larger = time.perf_counter() - began, min(2 * size, _LARGEST)
        if larger == size or larger > (batch.most or larger):
            break
        if spent >= most_seconds(feed, 1 / (rate * num_replicas)):
            break
        batch.change(larger)
    batch.change(best_size)


def _trial(
    run_chunk: RunChunk, feed: Feed, batch: BatchSize
) -> Generator[HostBatch, None, float]:
    """Rows per second at the batch's size; 0 if the rows ended first."""
    rate = 0.0
    for batches in (1, _TIMED_BATCHES):  # the first one compiles
        began = time.perf_counter()
        chunk = feed.take(batches * batch.size)
        if chunk is None:
            return 0.0
        result = run_chunk(chunk, batch)
        rate = chunk.num_rows / (time.perf_counter() - began)
        yield result
    return rate
