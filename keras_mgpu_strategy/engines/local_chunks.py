"""Runs chunks on the devices of this process.

Guarantee: a chunk that does not fit into memory is run again in smaller batches.
"""

import time
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.compute.step import StepCompiler
from keras_mgpu_strategy.compute.transfers import host_of
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.feed import Chunk
from keras_mgpu_strategy.engines.fitting import run_fitting
from keras_mgpu_strategy.engines.memory_plans import Plan
from keras_mgpu_strategy.engines.timing import note_stages, try_copies_out
from keras_mgpu_strategy.engines.track import Track, Turn
from keras_mgpu_strategy.types import HostBatch


class LocalChunks:
    """A `ChunkRunner` for the replicas of a strategy.

    Args:
        work: Per-run state.
        compiler: Makes and keeps the compiled steps.
    """

    def __init__(self, work: Work, compiler: StepCompiler):
        self._work = work
        self._compiler = compiler

    def begin_run(self) -> None:
        """Makes the replicas agree on what they must share."""
        self._compiler.begin_run()

    def run(
        self, chunk: Chunk, batch: BatchSize, replica: int, track: Track
    ) -> HostBatch:
        """Returns the results of a chunk."""
        devices = self._work.devices[replica : replica + 1]
        began = time.perf_counter()
        seconds = 0.0

        def attempt(piece: Chunk, plan: Plan, turn: Turn) -> tuple[HostBatch, int]:
            return self._attempt(piece, plan, replica, turn, seconds)

        try:
            chunk = self._work.ready(chunk, batch.size)
            seconds = time.perf_counter() - began
            parts = run_fitting(chunk, attempt, batch, track, devices)
        except Exception as error:
            error.add_note(chunk.failed)
            raise
        return gather.join(parts)

    def _attempt(
        self,
        chunk: Chunk,
        plan: Plan,
        replica: int,
        turn: Turn,
        seconds_before: float,
    ) -> tuple[HostBatch, int]:
        work, compiler = self._work, self._compiler
        signature = work.signature(chunk.inputs, plan.size)
        numbers = (work.run, chunk.start)
        step = compiler.replica_step(signature, replica, work.clock, *numbers)
        copy = compiler.copier(signature, replica, work.clock)
        with work.clock.stage("input"), tf.device(host_of(work.devices[replica])):
            arrays = chunk.padded(plan.size)
            leaves: Any = [tf.convert_to_tensor(array) for array in arrays]
        turn.copy()
        leaves = copy(*leaves)
        turn.launch()
        with tf.device(work.devices[replica]):
            outputs = step(*leaves)
        rows, bytes_in = len(arrays[0]), sum(array.nbytes for array in arrays)
        work.clock.add_chunk(replica, chunk.num_rows, plan.size, bytes_in)
        results = gather.to_host(outputs, chunk.start, chunk.num_rows, rows)
        bytes_out = results.num_bytes
        if plan.is_measured:
            try_copies_out(work, replica)
        note_stages(work, replica, turn, rows, bytes_out, least_seconds=seconds_before)
        # Outputs exist twice while those of the micro-batches are joined.
        return results, bytes_in + 2 * bytes_out
