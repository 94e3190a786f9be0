"""Runs chunks on the devices of this process.

Guarantee: a chunk that does not fit into memory is run again in smaller batches.
"""

import time
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import gather
from keras_mgpu_strategy.backing_off import BatchSize
from keras_mgpu_strategy.engines.device_memory import Probe
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.engines.work import Work
from keras_mgpu_strategy.feed import Chunk
from keras_mgpu_strategy.notes import add_note
from keras_mgpu_strategy.step import StepCompiler
from keras_mgpu_strategy.step_calls import Position
from keras_mgpu_strategy.transfers import host_of
from keras_mgpu_strategy.types import HostBatch


class LocalChunks:
    """A `ChunkRunner` for the replicas of a strategy.

    Args:
        work: The books of the run.
        compiler: Makes and keeps the compiled steps.
    """

    def __init__(self, work: Work, compiler: StepCompiler):
        self._work = work
        self._compiler = compiler

    def begin_run(self) -> None:
        """Has the replicas agree on what they must."""
        self._compiler.begin_run()

    def run(
        self, chunk: Chunk, batch: BatchSize, replica: int, track: Track
    ) -> HostBatch:
        """Returns the results of a chunk."""
        began = time.perf_counter()
        try:
            chunk = self._work.ready(chunk, batch.size)
        except Exception as error:
            add_note(error, chunk.failed)
            raise
        seconds = time.perf_counter() - began
        while True:
            size = batch.size
            probe = Probe(self._work.devices[replica]) if batch.on_trial else None
            try:
                results = self._attempt(chunk, size, replica, track, seconds)
            except tf.errors.ResourceExhaustedError as error:
                batch.shrink(size, chunk.start, error)
                continue
            except Exception as error:
                add_note(error, chunk.failed)
                raise
            if probe is not None:
                batch.bound(probe.largest_batch(size))
            return results

    def _attempt(
        self,
        chunk: Chunk,
        batch_size: int,
        replica: int,
        track: Track,
        seconds_before: float,
    ) -> HostBatch:
        work, compiler = self._work, self._compiler
        signature = work.signature(chunk.inputs, batch_size)
        position = Position(work.run, chunk.start)
        step = compiler.replica_step(signature, replica, work.clock, position)
        copy = compiler.copier(signature, replica, work.clock)
        with track.turn() as turn:
            with work.clock.stage("input"), tf.device(host_of(work.devices[replica])):
                arrays = chunk.padded(batch_size)
                leaves: Any = [tf.convert_to_tensor(array) for array in arrays]
            turn.copy()
            began = time.perf_counter()
            leaves = copy(*leaves)
            turn.launch()
            with tf.device(work.devices[replica]):
                outputs = step(*leaves)
            seconds = work.pace.busy(replica, began, time.perf_counter())
        rows, bytes_in = len(arrays[0]), sum(array.nbytes for array in arrays)
        work.clock.add("compute", seconds)
        # What takes longer tells how many rows are to be taken at a time.
        work.pace.record(rows, max(seconds, seconds_before))
        work.clock.add_chunk(replica, chunk.num_rows, batch_size, bytes_in)
        return gather.to_host(outputs, chunk.start, chunk.num_rows, rows)
