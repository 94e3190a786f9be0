"""Threads for each device, each taking the next chunk when its device is free.

Guarantees, beyond those of every engine:

* Results are on the host when the call of a step returns, and each thread waits in such
  a call, without holding the GIL. `engines.track` sets the order in which a device is
  given its chunks, and limits their number.
* No replica waits for another: a slow device takes fewer chunks.
* A chunk that fails on a replica, and can be run again, is run again by the thread
  that holds it; no row is read twice, none is delivered twice.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.backend import ChunkRunner, StoppedWithin
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.feed import Chunk, Feed
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.engines.tuning import tune
from keras_mgpu_strategy.engines.worker_threads import ChunkError, collect
from keras_mgpu_strategy.system.arithmetic import ceil_div
from keras_mgpu_strategy.system.cores import num_cores
from keras_mgpu_strategy.types import HostBatch, Source

_SECONDS_TO_START_THREADS = 0.004


class ThreadsEngine:
    """Runs each replica's own compiled step from threads of its own.

    The flow, for each device d:

        lane:                          # in_flight + ahead threads per device
            while (chunk = feed.take()):
                put(chunks.run(chunk, d, the track of d))

    and, in the caller's thread: `yield from in_order(what was put)`.

    Args:
        work: Per-run state.
        chunks: Runs a chunk on a replica.
    """

    def __init__(self, work: Work, chunks: ChunkRunner):
        self._work = work
        self._chunks = chunks
        self._devices = work.devices
        self._tracks = [Track(work.in_flight) for _ in self._devices]

    def run(
        self, source: Source, batch_size: int, start: int = 0
    ) -> Iterator[HostBatch]:
        """Yields results in input order; see `Engine.run`."""
        work = self._work
        self._chunks.begin_run()
        work.specs.cover(work.spec)
        batch = work.batch(batch_size)
        most_rows = work.most_rows(batch_size)
        with (
            contextlib.closing(Feed(source, most_rows, start)) as feed,
            contextlib.closing(self._batches(feed, batch, most_rows)) as batches,
        ):
            yield from gather.in_order(batches, start)

    def _batches(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Generator[HostBatch, None, None]:
        self._work.clock.start()
        stopped: StoppedWithin | None = None
        try:
            yield from self._run_all(feed, batch, most_rows)
        except StoppedWithin as error:
            stopped = error  # raised below, so that it is not the context of the user's
        if stopped is not None:
            yield stopped.results
            raise stopped.error

    def _run_all(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Iterator[HostBatch]:
        if self._work.tunes and not self._work.pads_batches:
            devices, clock = len(self._devices), self._work.clock
            yield from tune(self._run_first, feed, batch, devices, clock)
        yield from self._run_measured(feed, batch)
        if self._is_small(feed.rows_left, batch.size):
            yield from self._run_here(feed, batch, most_rows)
        else:
            yield from self._run_lanes(feed, batch, most_rows)
        if feed.error is not None:
            raise feed.error

    def _run_measured(self, feed: Feed, batch: BatchSize) -> Iterator[HostBatch]:
        """Runs the first rows, while it is unknown how much memory a batch takes."""
        if batch.plan.is_measured:
            chunk = feed.take(batch.size)
            if chunk is not None:
                yield self._run_first(chunk, batch)

    def _is_small(self, rows_left: int | None, batch_size: int) -> bool:
        """Whether threads would cost more than they save."""
        if rows_left is None:
            return False
        is_short = self._work.pace.seconds(rows_left) < _SECONDS_TO_START_THREADS
        return rows_left <= batch_size or is_short

    def _run_here(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Iterator[HostBatch]:
        """Runs the remaining rows on the first replica, without any thread."""
        while (chunk := feed.take(most_rows)) is not None:
            yield self._run_first(chunk, batch)

    def _run_first(self, chunk: Chunk, batch: BatchSize) -> HostBatch:
        return self._chunks.run(chunk, batch, 0, self._tracks[0])

    def _run_lanes(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Iterator[HostBatch]:
        lanes_each = self._work.in_flight + self._work.ahead
        if self._work.preprocess is not None:  # on as many cores as there are
            lanes_each = max(lanes_each, ceil_div(num_cores(), len(self._devices)))
        num_lanes = len(self._devices) * lanes_each
        if feed.rows_left is not None:
            num_lanes = min(num_lanes, ceil_div(feed.rows_left, batch.size))

        def lane(number: int, put: Callable[[HostBatch], None]) -> None:
            replica = number % len(self._devices)
            while (
                ran := self._take_and_run(feed, batch, most_rows, replica)
            ) is not None:
                with self._work.clock.stage("write"):
                    put(ran)

        return collect(lane, num_lanes, feed, room=num_lanes + 1)

    def _take_and_run(
        self, feed: Feed, batch: BatchSize, most_rows: int, replica: int
    ) -> HostBatch | None:
        work, track = self._work, self._tracks[replica]
        few = 2 * len(self._devices) * batch.size

        def is_ending() -> bool:
            left = feed.rows_left
            return left is not None and left <= few

        with track.chunk(is_ending):
            with work.clock.stage("input"):
                most = min(batch.plan.chunk_rows or most_rows, most_rows)
                rows = work.pace.chunk_rows(batch.size, most, feed.rows_left)
                chunk = feed.take(rows)
            if chunk is None:
                return None
            try:
                return self._chunks.run(chunk, batch, replica, track)
            except BaseException as error:
                raise ChunkError(chunk.start) from error
