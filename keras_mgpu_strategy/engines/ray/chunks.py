"""Runs chunks in the processes of Ray's actors, each of which has its next chunk ready.

Results that wait for a late chunk, whose process died, are bounded; the first of the
chunks that have begun is never held back. Results are copied out of Ray's store, so
that keeping them does not fill it.
"""

import contextlib
import threading
from collections.abc import Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.interface import StoppedWithin
from keras_mgpu_strategy.engines.ray.actors import Actors
from keras_mgpu_strategy.engines.ray.worker import Done
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.system.messages import calling_line
from keras_mgpu_strategy.types import HostBatch, InputBatch

_MOST_WAITING_BYTES = 2**28


class Backpressure:
    """How far chunks may run ahead of the first one, by the results waiting for it."""

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes
        self._row_bytes = 0.0
        self._begun: set[int] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def admitted(self, start: int) -> Iterator[None]:
        """Waits until a chunk, by its first row, is close enough to the first one."""
        with self._changed:
            self._begun.add(start)
            self._changed.wait_for(lambda: self._is_near(start))
        try:
            yield
        finally:
            with self._changed:
                self._begun.remove(start)
                self._changed.notify_all()

    def learn(self, num_rows: int, num_bytes: int) -> None:
        """Learns how large results are."""
        if num_rows:
            self._row_bytes = num_bytes / num_rows

    def _is_near(self, start: int) -> bool:
        ahead = start - min(self._begun)
        return ahead == 0 or ahead * self._row_bytes <= self._most_bytes


class RemoteChunks:
    """A `ChunkRunner` for the processes of Ray's actors."""

    def __init__(self, actors: Actors, context: Context):
        self._actors = actors
        self._context = context
        self._backpressure = Backpressure(_MOST_WAITING_BYTES)
        self._lock = threading.Lock()
        self._line = calling_line()

    def begin_run(self) -> None:
        """Does nothing: each process has one replica."""

    def run(
        self, chunk: InputBatch, batch: BatchSize, replica: int, track: Track
    ) -> HostBatch:
        """Returns the results of a chunk."""
        del track  # the process has its own
        context = self._context
        what = f"Running rows {chunk.start} to {chunk.start + chunk.num_rows}"
        how = (batch.size, context.is_fixed, context.head, context.run)
        with self._backpressure.admitted(chunk.start):
            done: Done = self._actors.call(
                replica, "run", chunk, *how, what=what, line=self._line
            )
        self._record(batch, replica, done)
        with context.clock.stage("copy_out"):
            outputs = tf.nest.map_structure(np.array, done.batch.outputs)
        results = HostBatch(done.batch.start, outputs, done.batch.marks)
        if done.stopped_by is not None:
            where = f"In the process of replica {replica}"
            raise StoppedWithin(results, done.stopped_by.error_from(where))
        return results

    def _record(self, batch: BatchSize, replica: int, done: Done) -> None:
        clock, num_rows = self._context.clock, done.batch.num_rows
        for stage, seconds in done.seconds.items():
            # Processes compile at the same time.
            shared = len(self._context.devices) if stage == "compile" else 1
            clock.add(stage, seconds / shared)
        clock.add_chunk(replica, num_rows, done.batch_size, done.bytes_in)
        padded = ceil_div(max(num_rows, 1), done.batch_size) * done.batch_size
        self._context.chunk_sizes.record(padded, done.seconds["compute"])
        self._backpressure.learn(num_rows, done.batch.num_bytes)
        batch.most = done.most
        with self._lock:
            for back_off in done.back_offs:
                if back_off.batch_size < batch.size:  # not recorded for another process
                    clock.add_back_off(back_off)
                    batch.change(back_off.batch_size)
