"""Runs one chunk on each replica, all of them together, by `strategy.run`."""

import time
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy import gather
from keras_mgpu_strategy.backing_off import BatchSize
from keras_mgpu_strategy.engines.lanes import ChunkError
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.engines.work import Work
from keras_mgpu_strategy.feed import Chunk
from keras_mgpu_strategy.notes import add_note
from keras_mgpu_strategy.step import StepCompiler
from keras_mgpu_strategy.transfers import HOST
from keras_mgpu_strategy.types import HostBatch


class LockstepChunks:
    """Runs one chunk on each replica; called by several threads.

    Args:
        work: The books of the run.
        compiler: Makes and keeps the compiled steps.
        batch: The per-replica batch, shrunk where memory runs out.
    """

    def __init__(self, work: Work, compiler: StepCompiler, batch: BatchSize):
        self._work = work
        self._compiler = compiler
        self._batch = batch
        self._track = Track(work.in_flight)
        self._strategy = compiler.strategy

    def run(
        self, chunks: Sequence[Chunk], element_spec: Sequence[Any]
    ) -> list[HostBatch]:
        """Returns the results of the replicas that do not idle.

        Args:
            chunks: One for each replica; the start is -1 where it idles.
            element_spec: Specs of the distributed dataset that they come from: two
                numbers, then the flat inputs.

        Raises:
            ChunkError: Any error, with the first row of the chunks.
        """
        busy = [chunk for chunk in chunks if chunk.start >= 0]
        while True:
            size = self._batch.size
            try:
                return self._attempt(chunks, size, element_spec)
            except tf.errors.ResourceExhaustedError as error:
                self._batch.shrink(size, busy[0].start, error)
            except BaseException as error:
                for chunk in busy:
                    add_note(error, chunk.failed)
                raise ChunkError(busy[0].start) from error

    def _attempt(
        self, chunks: Sequence[Chunk], size: int, spec: Sequence[Any]
    ) -> list[HostBatch]:
        work, compiler = self._work, self._compiler
        for chunk in chunks:
            signature = work.signature(chunk.inputs, size)
        step = compiler.lockstep(signature, spec, work.clock)
        # The two numbers of an element have the specs of a run and a row.
        copy = compiler.lockstep_copier(spec[2:], work.clock)
        with tf.device(HOST):
            rows = [[work.run, chunk.start] for chunk in chunks]
            numbers = [list(map(_scalar, numbers)) for numbers in rows]
        with self._track.turn() as turn:
            inputs = [_whole_batches(chunk.inputs, size) for chunk in chunks]
            leaves: Any = self._per_replica(inputs)
            turn.copy()
            began = time.perf_counter()
            leaves = copy(*leaves)
            turn.launch()
            outputs = step(*self._per_replica(numbers), *leaves)
            seconds = work.pace.busy(0, began, time.perf_counter())
        # In step: each replica is taken until the slowest one ends.
        work.clock.add("compute", len(chunks) * seconds)
        return self._results(outputs, chunks, inputs, size)

    def _per_replica(self, inputs: list[list[tf.Tensor]]) -> list[Any]:
        """Turns one flat list per replica into one distributed value per leaf."""
        if len(inputs) == 1:  # as the data set of a single replica gives it
            return inputs[0]
        distribute = self._strategy.experimental_distribute_values_from_function

        def value(leaf: int) -> Any:
            return distribute(
                lambda context: inputs[context.replica_id_in_sync_group][leaf]
            )

        return [value(leaf) for leaf in range(len(inputs[0]))]

    def _results(
        self,
        outputs: Any,
        chunks: Sequence[Chunk],
        inputs: list[list[tf.Tensor]],
        size: int,
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
            batches.append(
                gather.to_host(mine, chunk.start, chunk.num_rows, len(leaves[0]))
            )
        return batches


def _scalar(number: int) -> tf.Tensor:
    return tf.constant(number, tf.int64)


def _whole_batches(inputs: Any, size: int) -> list[tf.Tensor]:
    """Flat tensors, padded anew where the batch became smaller on the way."""
    flat = tf.nest.flatten(inputs)
    rows = int(flat[0].shape[0])
    if rows % size == 0:
        return flat
    arrays = [np.asarray(leaf) for leaf in flat]
    with tf.device(HOST):
        return [tf.convert_to_tensor(a) for a in Chunk(0, rows, arrays).padded(size)]
