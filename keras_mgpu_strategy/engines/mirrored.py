"""All replicas in step: `strategy.run` over a distributed tf.data pipeline."""

import functools
from collections.abc import Callable, Generator, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.compute.compiled import scalar
from keras_mgpu_strategy.compute.sizes import even_chunk_rows, even_round
from keras_mgpu_strategy.compute.step import StepCompiler
from keras_mgpu_strategy.compute.transfers import HOST
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize, Plan
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.feed import Feed, noted, padded
from keras_mgpu_strategy.engines.pipelines import Rounds
from keras_mgpu_strategy.engines.running import (
    Chunks,
    Engine,
    Ran,
    busy,
    note_stages,
    on_host,
    run_fitting,
)
from keras_mgpu_strategy.engines.track import Track, Turn
from keras_mgpu_strategy.engines.worker_threads import at_fault, collect
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import HostBatch, InputBatch


class MirroredEngine(Engine):
    """Runs one compiled `strategy.run` per step, in `in_flight + ahead` threads."""

    def __init__(self, context: Context, compiler: StepCompiler):
        super().__init__(context, compiler.begin_run)
        self._compiler = compiler
        self._strategy = compiler.strategy
        self._track = Track(context.in_flight)

    def _batches(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Generator[HostBatch, None, None]:
        context, rows, batch_size = self._context, feed.rows_left, batch.size
        num_replicas = len(context.devices)
        num_threads = context.in_flight + context.ahead
        if rows is not None:
            num_rounds = ceil_div(max(rows, 1), batch_size * num_replicas)
            num_threads = min(num_threads, num_rounds)
        most = even_chunk_rows(batch_size, most_rows, rows, num_replicas)

        def chunk_rows() -> int:
            wanted = context.chunk_rows(batch_size, most, None)
            return even_round(batch_size, wanted, feed.rows_left, num_replicas)

        rounds = Rounds(feed, context, batch_size, chunk_rows, self._strategy)

        def work(_: int, put: Callable[[list[HostBatch]], None]) -> None:
            try:
                while (chunks := rounds.next()) is not None:
                    ran = self._run(chunks, batch, rounds.element_spec)
                    with context.clock.stage("write"):
                        put(ran)
            finally:
                rounds.end()

        for batches in collect(work, num_threads, feed, room=num_threads):
            yield from batches
        if feed.error is not None:
            raise feed.error

    def _run(
        self, chunks: Chunks, batch: BatchSize, element_spec: Sequence[Any]
    ) -> list[HostBatch]:
        """Returns the results of the replicas that do not idle."""
        attempt = functools.partial(self._attempt, element_spec)
        how = (batch, self._track, self._context, self._context.devices)
        with at_fault(busy(chunks)[0]), noted(*busy(chunks)):
            return run_fitting(chunks, attempt, *how)

    def _attempt(
        self, spec: Sequence[Any], chunks: Chunks, plan: Plan, turn: Turn
    ) -> Ran:
        context, compiler = self._context, self._compiler
        for chunk in chunks:  # the last signature covers them all
            signature = context.signature(chunk.inputs, plan)
        step = compiler.lockstep(signature, spec, context.clock)
        # The two numbers of an element have the specs of a run and a row.
        copy = compiler.lockstep_copier(spec[2:], context.clock)
        numbers = [[scalar(context.run), scalar(chunk.start)] for chunk in chunks]
        inputs = [_whole_batches(chunk, signature.batch_size) for chunk in chunks]
        leaves: Any = self._per_replica(inputs)
        turn.copy()
        leaves = copy(*leaves)
        turn.launch()
        # Otherwise results would pass through the first GPU on their way to the host.
        with tf.device(HOST):
            outputs = step(*self._per_replica(numbers), *leaves)
        batches, moved = self._results(outputs, chunks, inputs, plan.size)
        rows = max(len(leaves[0]) for leaves in inputs)
        weight = context.weight(chunks[0].inputs, rows)
        bytes_out = max(batch.num_bytes for batch in batches)
        # In step: each replica is busy until the slowest one ends.
        note_stages(context, plan, 0, turn, weight, bytes_out, count=len(inputs))
        return batches, moved

    def _per_replica(self, inputs: list[list[tf.Tensor]]) -> list[Any]:
        """Turns one flat list per replica into one distributed value per leaf."""
        if len(inputs) == 1:  # as the data set of a single replica gives it
            return inputs[0]
        distribute = self._strategy.experimental_distribute_values_from_function

        def value(leaves: tuple[tf.Tensor, ...]) -> Any:
            return distribute(lambda context: leaves[context.replica_id_in_sync_group])

        return [value(leaves) for leaves in zip(*inputs, strict=True)]

    def _results(
        self, outputs: Any, chunks: Chunks, inputs: list[list[tf.Tensor]], size: int
    ) -> Ran:
        local_results = self._strategy.experimental_local_results
        results = [local_results(leaf) for leaf in tf.nest.flatten(outputs)]
        batches, moved = [], 0
        for replica, (chunk, leaves) in enumerate(zip(chunks, inputs, strict=True)):
            if chunk.start < 0:
                continue
            own = tf.nest.pack_sequence_as(outputs, [leaf[replica] for leaf in results])
            num_bytes = sum(
                leaf.shape.num_elements() * leaf.dtype.size for leaf in leaves
            )
            self._context.clock.add_chunk(replica, chunk.num_rows, size, num_bytes)
            batch = gather.to_host(own, chunk.start, chunk.num_rows, len(leaves[0]))
            moved = max(moved, num_bytes + 2 * batch.num_bytes)
            batches.append(batch)
        return batches, moved


def _whole_batches(chunk: InputBatch, size: int) -> list[Any]:
    """Flat tensors, padded again if the batch has become smaller since."""
    flat = tf.nest.flatten(chunk.inputs)
    if int(flat[0].shape[0]) % size == 0 and isinstance(flat[0], tf.Tensor):
        return flat
    with tf.device(HOST):
        return [tf.convert_to_tensor(a) for a in padded(on_host(chunk), size)]
