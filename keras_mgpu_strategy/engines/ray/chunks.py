"""Runs chunks in the processes of a fleet.

Guarantees:

* A chunk whose process dies is run again, in another process; one that ends its process
  several times is an error that names its rows.
* An exception in the model arrives as itself.
"""

import threading
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from keras_mgpu_strategy.backing_off import BatchSize
from keras_mgpu_strategy.batch_size import ceil_div
from keras_mgpu_strategy.engines.ray.fleet import Fleet
from keras_mgpu_strategy.engines.ray.worker import Done, Failed, Task
from keras_mgpu_strategy.engines.work import Work
from keras_mgpu_strategy.feed import Chunk
from keras_mgpu_strategy.notes import add_note
from keras_mgpu_strategy.types import HostBatch

_MOST_ATTEMPTS = 4


class RemoteChunks:
    """A `ChunkRunner` for the processes of a fleet.

    Args:
        ray: The package, connected.
        fleet: The processes.
        work: The books of the run.
    """

    def __init__(self, ray: Any, fleet: Fleet, work: Work):
        self._ray = ray
        self._fleet = fleet
        self._work = work
        self._lock = threading.Lock()

    def run(
        self,
        chunk: Chunk,
        batch: BatchSize,
        replica: int,
        slot: AbstractContextManager[Any],
    ) -> HostBatch:
        """Returns the results of a chunk."""
        with slot:
            task = Task(chunk, batch.size, self._work.is_fixed, self._work.head)
            done = self._run_somewhere(task, replica)
        if isinstance(done, Failed):
            add_note(done.error, f"In the process of replica {replica}:\n{done.trace}")
            raise done.error
        self._keep_books(chunk, batch, replica, done)
        return done.batch

    def _run_somewhere(self, task: Task, replica: int) -> Done | Failed:
        errors, last = self._ray.exceptions, None
        for _ in range(_MOST_ATTEMPTS):
            actor = self._fleet.actor(replica)
            try:
                return self._ray.get(actor.run.remote(task))
            except errors.RayTaskError:
                raise
            except errors.RayError as error:
                self._fleet.replace(actor)
                last = error
        rows = f"{task.chunk.start} to {task.chunk.start + task.chunk.num_rows}"
        raise RuntimeError(
            f"Rows {rows} ended the process that ran them {_MOST_ATTEMPTS} times "
            f"({type(last).__name__}). Rows before them are delivered. Look at these "
            "rows, at the memory of the machine, and at Ray's logs of the workers."
        ) from last

    def _keep_books(
        self, chunk: Chunk, batch: BatchSize, replica: int, done: Done
    ) -> None:
        clock = self._work.clock
        for stage, seconds in done.seconds.items():
            # Processes compile at the same time.
            shared = len(self._work.devices) if stage == "compile" else 1
            clock.add(stage, seconds / shared)
        clock.add_chunk(replica, chunk.num_rows, done.batch_size, done.bytes_in)
        padded = ceil_div(max(chunk.num_rows, 1), done.batch_size) * done.batch_size
        self._work.pace.record(padded, done.seconds["compute"])
        with self._lock:
            for back_off in done.back_offs:
                clock.add_back_off(back_off)
            if done.batch_size < batch.size:
                batch.change(done.batch_size)
            if done.missing is not None:
                rows = chunk.start + np.flatnonzero(done.missing)
                self._work.missing.update(rows.tolist())
