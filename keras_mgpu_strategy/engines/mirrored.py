"""All replicas in step: `strategy.run` over a distributed tf.data pipeline.

Guarantees, beyond those of every engine: while a step runs, the inputs of the next are
copied to the devices, and the results of the previous to the host; `engines.track` sets
their order and limits. A step ends when its slowest replica ends.
"""

import contextlib
from collections.abc import Callable, Generator, Iterator

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.compute.sizes import even_chunk_rows, even_round
from keras_mgpu_strategy.compute.step import StepCompiler
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.engines.lockstep import LockstepChunks
from keras_mgpu_strategy.engines.pipelines import Rounds
from keras_mgpu_strategy.engines.worker_threads import collect
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import HostBatch, Source


class MirroredEngine:
    """Runs one compiled `strategy.run` per step, for all replicas together.

    The flow:

        rounds = one tf.data pipeline per replica
        work:                              # in in_flight + ahead threads
            while any replica has rows:
                put(step(rounds.next()))

    and, in the caller's thread: `yield from in_order(what was put)`.
    """

    def __init__(self, context: Context, compiler: StepCompiler):
        self._context = context
        self._compiler = compiler

    def run(
        self, source: Source, batch_size: int, start: int = 0
    ) -> Iterator[HostBatch]:
        """Yields results in input order; see `Engine.run`."""
        context = self._context
        self._compiler.begin_run()
        context.specs.cover(context.spec)
        batch = context.batch(batch_size)
        most_rows = context.most_rows(batch_size)
        with (
            contextlib.closing(Feed(source, most_rows, start)) as feed,
            contextlib.closing(self._batches(feed, batch, most_rows)) as batches,
        ):
            yield from gather.in_order(batches, start)

    def _batches(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Generator[HostBatch, None, None]:
        context, rows, batch_size = self._context, feed.rows_left, batch.size
        num_threads, num_replicas = (
            context.in_flight + context.ahead,
            len(context.devices),
        )
        if rows is not None:
            num_rounds = ceil_div(max(rows, 1), batch_size * num_replicas)
            num_threads = min(num_threads, num_rounds)
        most = even_chunk_rows(batch_size, most_rows, rows, num_replicas)

        def chunk_rows() -> int:
            wanted = context.chunk_sizes.chunk_rows(batch_size, most, None)
            return even_round(batch_size, wanted, feed.rows_left, num_replicas)

        strategy = self._compiler.strategy
        rounds = Rounds(feed, context, batch_size, chunk_rows, strategy)
        runner = LockstepChunks(context, self._compiler, batch)

        def work(_: int, put: Callable[[list[HostBatch]], None]) -> None:
            try:
                while (chunks := rounds.next()) is not None:
                    ran = runner.run(chunks, rounds.element_spec)
                    with context.clock.stage("write"):
                        put(ran)
            finally:
                rounds.end()

        for batches in collect(work, num_threads, feed, room=num_threads):
            yield from batches
        if feed.error is not None:
            raise feed.error
