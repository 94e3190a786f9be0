"""Runs chunks in the processes of a fleet.

Guarantees:

* A process has its next chunk while it works on one.
* Results that wait for a late chunk, whose process died, are bounded.
* Results are copied out of Ray's store, so that keeping them does not fill it.
"""

import threading

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.backend import StoppedWithin
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.feed import Chunk
from keras_mgpu_strategy.engines.ray.actors import Fleet
from keras_mgpu_strategy.engines.ray.backpressure import Window
from keras_mgpu_strategy.engines.ray.worker import Done, Task
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.system.arithmetic import ceil_div
from keras_mgpu_strategy.system.caller import calling_line
from keras_mgpu_strategy.types import HostBatch

_MOST_WAITING_BYTES = 2**28


class RemoteChunks:
    """A `ChunkRunner` for the processes of a fleet.

    Args:
        fleet: The processes.
        work: Per-run state.
    """

    def __init__(self, fleet: Fleet, work: Work):
        self._fleet = fleet
        self._work = work
        self._window = Window(_MOST_WAITING_BYTES)
        self._lock = threading.Lock()
        self._line = calling_line()

    def begin_run(self) -> None:
        """Does nothing: each process has one replica."""

    def run(
        self,
        chunk: Chunk,
        batch: BatchSize,
        replica: int,
        track: Track,
    ) -> HostBatch:
        """Returns the results of a chunk."""
        del track  # the process has its own
        rows = f"Running rows {chunk.start} to {chunk.start + chunk.num_rows}"
        with self._window.admitted(chunk.start):
            task = Task(
                chunk,
                batch.size,
                self._work.is_fixed,
                self._work.head,
                self._work.run,
            )
            done = self._fleet.call(replica, "run", task, what=rows, line=self._line)
        self._keep_books(batch, replica, done)
        with self._work.clock.stage("copy_out"):
            outputs = tf.nest.map_structure(np.array, done.batch.outputs)
        results = HostBatch(done.batch.start, outputs)
        if done.stopped_by is not None:
            where = f"In the process of replica {replica}"
            raise StoppedWithin(results, done.stopped_by.error_from(where))
        return results

    def _keep_books(self, batch: BatchSize, replica: int, done: Done) -> None:
        clock, start, num_rows = self._work.clock, done.batch.start, done.batch.num_rows
        for stage, seconds in done.seconds.items():
            # Processes compile at the same time.
            shared = len(self._work.devices) if stage == "compile" else 1
            clock.add(stage, seconds / shared)
        clock.add_chunk(replica, num_rows, done.batch_size, done.bytes_in)
        padded = ceil_div(max(num_rows, 1), done.batch_size) * done.batch_size
        self._work.pace.record(padded, done.seconds["compute"])
        arrays = tf.nest.flatten(done.batch.outputs)
        self._window.learn(num_rows, sum(array.nbytes for array in arrays))
        batch.bound(done.most)
        with self._lock:
            for back_off in done.back_offs:
                if back_off.batch_size < batch.size:  # not recorded for another process
                    clock.add_back_off(back_off)
                    batch.change(back_off.batch_size)
            if done.missing is not None:
                rows = start + np.flatnonzero(done.missing)
                self._work.missing.update(rows.tolist())
