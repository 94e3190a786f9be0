"""Runs chunks on the devices of this process.

Guarantee: a chunk that does not fit into memory is run again in smaller batches.
"""

import time
from contextlib import AbstractContextManager
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import gather
from keras_mgpu_strategy.backing_off import BatchSize
from keras_mgpu_strategy.engines.device_memory import Probe
from keras_mgpu_strategy.engines.work import Work
from keras_mgpu_strategy.feed import Chunk
from keras_mgpu_strategy.notes import add_note
from keras_mgpu_strategy.step import StepCompiler
from keras_mgpu_strategy.step_calls import Position
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
        self,
        chunk: Chunk,
        batch: BatchSize,
        replica: int,
        slot: AbstractContextManager[Any],
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
                results = self._attempt(chunk, size, replica, slot, seconds)
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
        slot: AbstractContextManager[Any],
        seconds_before: float,
    ) -> HostBatch:
        work = self._work
        signature = work.signature(chunk.inputs, batch_size)
        position = Position(work.run, chunk.start)
        step = self._compiler.replica_step(signature, replica, work.clock, position)
        with tf.device(work.devices[replica]):
            with work.clock.stage("input"):
                arrays = chunk.padded(batch_size)
                flat = [tf.convert_to_tensor(array) for array in arrays]
            with slot:
                outputs = self._compute(step, flat, replica, seconds_before)
        bytes_in = sum(array.nbytes for array in arrays)
        work.clock.add_chunk(replica, chunk.num_rows, batch_size, bytes_in)
        with work.clock.stage("read"):
            return gather.to_host(outputs, chunk.start, chunk.num_rows, len(arrays[0]))

    def _compute(
        self, step: Any, flat: list[tf.Tensor], replica: int, seconds_before: float
    ) -> Any:
        began = time.perf_counter()
        outputs = step(*flat)
        if "CPU" not in self._work.devices[replica]:
            wait_for(outputs)
        seconds = self._work.pace.busy(replica, began, time.perf_counter())
        self._work.clock.add("compute", seconds)
        # What takes longer tells how many rows are to be taken at a time.
        self._work.pace.record(len(flat[0]), max(seconds, seconds_before))
        return outputs


def wait_for(outputs: Any) -> None:
    """Returns once a device has computed the outputs of a call.

    A call returns when the kernels of a GPU are launched, not when they are done; time
    and chunks in flight would not be counted as what they are. Reading one value waits.
    """
    first = tf.nest.flatten(outputs)[0]
    tf.reshape(first, [-1])[:1].numpy()
