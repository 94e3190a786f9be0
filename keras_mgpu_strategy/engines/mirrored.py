"""All replicas in step: `strategy.run` over a distributed tf.data pipeline.

Guarantees, beyond those of every engine: while a step runs, the inputs of the next are
copied to the devices, and the results of the previous to the host; `engines.track` sets
their order and limits. A step ends when its slowest replica ends.
"""

import contextlib
import threading
from collections.abc import Callable, Generator, Iterator
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.compute.sizes import even_chunk_rows, even_round
from keras_mgpu_strategy.compute.step import StepCompiler
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.feed import Chunk, Feed
from keras_mgpu_strategy.engines.lockstep import LockstepChunks, Round
from keras_mgpu_strategy.engines.pipelines import ReplicaPipelines
from keras_mgpu_strategy.engines.worker_threads import collect
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.system.arithmetic import ceil_div
from keras_mgpu_strategy.types import HostBatch, Nest, Source


class MirroredEngine:
    """Runs one compiled `strategy.run` per step, for all replicas together.

    The flow:

        pipelines = one tf.data pipeline per replica
        lane:                              # in_flight + ahead threads
            while any replica has rows:
                put(step(next(pipelines)))

    and, in the caller's thread: `yield from in_order(what was put)`.

    Args:
        work: Per-run state.
        compiler: Makes and keeps the compiled step.
    """

    def __init__(self, work: Work, compiler: StepCompiler):
        self._work = work
        self._compiler = compiler
        self._strategy = compiler.strategy

    def run(
        self, source: Source, batch_size: int, start: int = 0
    ) -> Iterator[HostBatch]:
        """Yields results in input order; see `Engine.run`."""
        work = self._work
        self._compiler.begin_run()
        work.specs.cover(work.spec)
        batch = work.batch(batch_size)
        most_rows = work.most_rows(batch_size)
        with contextlib.closing(Feed(source, most_rows, start)) as feed:
            rows, devices = feed.rows_left, len(work.devices)
            most = even_chunk_rows(batch_size, most_rows, rows, devices)

            def chunk_rows() -> int:
                wanted = work.pace.chunk_rows(batch_size, most, None)
                return even_round(batch_size, wanted, feed.rows_left, devices)

            def pipelines() -> ReplicaPipelines:
                sizes = (batch_size, chunk_rows)
                return ReplicaPipelines(
                    feed, work.spec, *sizes, self._strategy, work.ready
                )

            rounds = _Rounds(pipelines, feed, self._strategy, work.clock)
            num_lanes = work.in_flight + work.ahead
            if rows is not None:
                num_lanes = min(num_lanes, ceil_div(max(rows, 1), batch_size * devices))
            with contextlib.closing(self._batches(rounds, batch, num_lanes)) as batches:
                yield from gather.in_order(batches, start)

    def _batches(
        self, rounds: "_Rounds", batch: BatchSize, num_lanes: int
    ) -> Generator[HostBatch, None, None]:
        work, feed = self._work, rounds.feed
        runner = LockstepChunks(work, self._compiler, batch)

        def lane(_: int, put: Callable[[list[HostBatch]], None]) -> None:
            try:
                while (dealt := rounds.next()) is not None:
                    ran = runner.run(dealt, rounds.element_spec)
                    with work.clock.stage("write"):
                        put(ran)
            finally:
                rounds.end()

        for batches in collect(lane, num_lanes, feed, room=num_lanes):
            yield from batches
        if feed.error is not None:
            raise feed.error


class _Rounds:
    """Hands out the pipelines' chunks, one per replica at a time, to any thread.

    Args:
        make: Makes the pipelines, in the first thread that asks for a round: Ctrl-C in
            the main thread could break TensorFlow's tracing.
        feed: Where they take the rows from.
        strategy: The strategy whose replicas are fed.
        clock: Records how long threads wait for rows.
    """

    def __init__(
        self,
        make: Callable[[], ReplicaPipelines],
        feed: Feed,
        strategy: tf.distribute.Strategy,
        clock: StageClock,
    ):
        self.feed = feed
        self.element_spec: tuple[Any, ...] = ()
        self._make: Callable[[], ReplicaPipelines] | None = make
        self._strategy = strategy
        self._clock = clock
        self._pipelines: ReplicaPipelines | None = None
        self._elements: Any = None
        self._lock = threading.Lock()

    def next(self) -> Round | None:
        """The next round; None at the end."""
        with self._lock:
            if self._make is None or self.feed.is_stopped:
                return None
            if self._pipelines is None:
                self._pipelines = self._make()
                self._elements = iter(self._pipelines.dataset)
                self.element_spec = self._pipelines.dataset.element_spec
                self._clock.start()
            with self._clock.stage("input"):
                dealt = self._round(next(self._elements), self._pipelines.spec)
            return dealt if dealt.busy else None

    def end(self) -> None:
        """Releases the pipelines and their threads; no round follows."""
        with self._lock:
            self._make = self._elements = None  # whose threads may still take chunks
            self._pipelines = None

    def _round(self, element: Any, spec: Nest) -> Round:
        local_results = self._strategy.experimental_local_results
        replicas = zip(*(local_results(leaf) for leaf in element), strict=True)
        return Round(
            tuple(
                Chunk(int(start), int(num_rows), tf.nest.pack_sequence_as(spec, inputs))
                for start, num_rows, *inputs in replicas
            )
        )
