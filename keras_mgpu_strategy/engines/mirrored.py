"""All replicas in step: `strategy.run` over a distributed tf.data pipeline.

Guarantees, beyond those of every engine: results of one step are read to the host
while the next step runs. A step ends when its slowest replica ends.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy import gather
from keras_mgpu_strategy.backing_off import BatchSize
from keras_mgpu_strategy.batch_size import even_chunk_rows
from keras_mgpu_strategy.engines.lanes import collect
from keras_mgpu_strategy.engines.work import Work
from keras_mgpu_strategy.feed import Chunk, Feed
from keras_mgpu_strategy.notes import add_note
from keras_mgpu_strategy.pipeline import ReplicaPipelines
from keras_mgpu_strategy.step import StepCompiler
from keras_mgpu_strategy.types import HostBatch, Nest, Source


class MirroredEngine:
    """Runs one compiled `strategy.run` per step, for all replicas together.

    The flow:

        pipelines = one tf.data pipeline per replica
        lane:                              # one thread
            while any replica has rows:
                put(step(next(pipelines)))
        meanwhile, in the caller's thread: yield the rows of the step before

    Args:
        work: The books of this run.
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
        batch = BatchSize(batch_size, work.clock, is_fixed=work.is_fixed)
        most_rows = work.most_rows(batch_size)
        with contextlib.closing(Feed(source, most_rows, start)) as feed:
            rows, devices = feed.rows_left, len(work.devices)
            chunk_rows = even_chunk_rows(batch_size, most_rows, rows, devices)

            def pipelines() -> ReplicaPipelines:
                sizes = (batch_size, chunk_rows)
                return ReplicaPipelines(
                    feed, work.spec, *sizes, self._strategy, work.ready
                )

            steps = self._steps(feed, pipelines, batch)
            with contextlib.closing(steps) as batches:
                yield from gather.in_order(batches, start)

    def _steps(
        self, feed: Feed, make: Callable[[], ReplicaPipelines], batch: BatchSize
    ) -> Generator[HostBatch, None, None]:
        clock = self._work.clock

        def lane(_: int, put: Callable[[list[HostBatch]], None]) -> None:
            # Here, since Ctrl-C in the main thread could break TensorFlow's tracing.
            pipelines = make()
            elements = iter(pipelines.dataset)
            clock.start()
            try:
                while not feed.is_stopped:
                    with clock.stage("input"):
                        chunks = self._local_chunks(next(elements), pipelines.spec)
                    if all(chunk.start < 0 for chunk in chunks):
                        return
                    batches = self._run_chunks(chunks, batch, pipelines)
                    with clock.stage("write"):
                        put(batches)
            finally:
                # The frame of an error would keep it, and with it threads of tf.data.
                del elements

        for batches in collect(lane, 1, feed, room=1):
            yield from batches
        if feed.error is not None:
            raise feed.error

    def _local_chunks(self, element: Any, spec: Nest) -> list[Chunk]:
        """What each replica was given; the start is -1 where it idles."""
        local_results = self._strategy.experimental_local_results
        replicas = zip(*(local_results(leaf) for leaf in element), strict=True)
        return [
            Chunk(int(start), int(num_rows), tf.nest.pack_sequence_as(spec, inputs))
            for start, num_rows, *inputs in replicas
        ]

    def _run_chunks(
        self, chunks: list[Chunk], batch: BatchSize, pipelines: ReplicaPipelines
    ) -> list[HostBatch]:
        while True:
            size = batch.size
            try:
                return self._attempt(chunks, size, pipelines)
            except tf.errors.ResourceExhaustedError as error:
                row = min(chunk.start for chunk in chunks if chunk.start >= 0)
                batch.shrink(size, row, error)
            except Exception as error:
                for chunk in chunks:
                    if chunk.start >= 0:
                        add_note(error, chunk.failed)
                raise

    def _attempt(
        self, chunks: list[Chunk], size: int, pipelines: ReplicaPipelines
    ) -> list[HostBatch]:
        work = self._work
        inputs = [_whole_batches(chunk.inputs, size) for chunk in chunks]
        for chunk in chunks:
            signature = work.signature(chunk.inputs, size)
        # The two numbers of an element have the specs of a run and a row.
        step = self._compiler.lockstep(
            signature, pipelines.dataset.element_spec, work.clock
        )
        arguments = [
            [np.int64(work.run), np.int64(chunk.start), *leaves]
            for chunk, leaves in zip(chunks, inputs, strict=True)
        ]
        began = time.perf_counter()
        outputs = step(*self._per_replica(arguments))
        # In step: each replica is taken until the slowest one ends.
        work.clock.add("compute", len(chunks) * (time.perf_counter() - began))
        return self._read(outputs, chunks, inputs, size)

    def _per_replica(self, inputs: list[list[Any]]) -> list[Any]:
        """Turns one flat list per replica into one distributed value per leaf."""
        if len(inputs) == 1:  # as the data set of a single replica gives it
            return list(map(tf.convert_to_tensor, inputs[0]))
        distribute = self._strategy.experimental_distribute_values_from_function

        def value(leaf: int) -> Any:
            return distribute(
                lambda context: tf.convert_to_tensor(
                    inputs[context.replica_id_in_sync_group][leaf]
                )
            )

        return [value(leaf) for leaf in range(len(inputs[0]))]

    def _read(
        self, outputs: Nest, chunks: list[Chunk], inputs: list[list[Any]], size: int
    ) -> list[HostBatch]:
        local_results = self._strategy.experimental_local_results
        results = [local_results(leaf) for leaf in tf.nest.flatten(outputs)]
        batches = []
        for replica, (chunk, leaves) in enumerate(zip(chunks, inputs, strict=True)):
            if chunk.start < 0:
                continue
            mine = tf.nest.pack_sequence_as(
                outputs, [leaf[replica] for leaf in results]
            )
            num_bytes = sum(
                leaf.shape.num_elements() * leaf.dtype.size for leaf in leaves
            )
            self._work.clock.add_chunk(replica, chunk.num_rows, size, num_bytes)
            with self._work.clock.stage("read"):
                batches.append(
                    gather.to_host(mine, chunk.start, chunk.num_rows, len(leaves[0]))
                )
        return batches


def _whole_batches(inputs: Nest, size: int) -> list[Any]:
    """Flat tensors, padded anew where the batch became smaller on the way."""
    flat = tf.nest.flatten(inputs)
    rows = int(flat[0].shape[0])
    if rows % size == 0:
        return flat
    arrays = [np.asarray(leaf) for leaf in flat]
    return [tf.convert_to_tensor(a) for a in Chunk(0, rows, arrays).padded(size)]
