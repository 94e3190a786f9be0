"""A run that has been checked and can begin.

Guarantee: however a run ends, its report is delivered.
"""

import contextlib
import dataclasses
import os
from collections.abc import Callable, Generator, Iterator

import tensorflow as tf

from keras_mgpu_strategy.engines.interface import Engine
from keras_mgpu_strategy.report import Report, StageClock
from keras_mgpu_strategy.sources.marks import MarksOf, no_marks
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.fork_guard import HomeProcess
from keras_mgpu_strategy.types import HostBatch, Origin, Source


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that has been checked and can begin.

    Args:
        source: The rows.
        engine: What runs them.
        clock: Where the time goes.
        batch_size: Initial per-replica batch.
        global_batch: Rows of a batch over all replicas.
        when_done: Called with the report of a run that has ended, however it ended.
        profile: Folder for a trace of the run, or None.
        marks: What is known about rows besides the model's inputs; added to batches.
        origin_of: Identifies the input. It may read much of it, so it is called only
            to compare runs.
        total_rows: Rows of the whole input; None if only known by reading.
        first_row: Index of the first row to run.
        home: The process that it runs in.
    """

    source: Source
    engine: Engine
    clock: StageClock
    batch_size: int
    global_batch: int
    when_done: Callable[[Report], None]
    profile: str | os.PathLike[str] | None = None
    marks: MarksOf = no_marks
    origin_of: Callable[[], Origin] = Origin
    total_rows: int | None = None
    first_row: int = 0
    home: HomeProcess = dataclasses.field(default_factory=HomeProcess)

    def run(self, start: int | None = None) -> Generator[HostBatch, None, None]:
        """Yields results in input order; at least one batch.

        Args:
            start: Index of the first row to run; None for `first_row`.

        Raises:
            RuntimeError: This process was forked since the job was created.
        """
        self.home.check()
        try:
            with _profiler(self.profile):
                yield from self._counted(self.first_row if start is None else start)
        finally:
            # In a forked process a thread may hold the clock's lock forever.
            if self.home.is_this:
                self.when_done(self.clock.report())

    def _counted(self, start: int) -> Iterator[HostBatch]:
        for batch in self.engine.run(self.source, self.batch_size, start):
            arrays = tf.nest.flatten(batch.outputs)
            num_bytes = sum(array.nbytes for array in arrays)
            self.clock.add_delivered(len(arrays[0]), num_bytes)
            marks = self.marks(batch.start, batch.stop)
            if batch.marks.missing is not None:  # by a process that read the rows
                marks = dataclasses.replace(marks, missing=batch.marks.missing)
            yield dataclasses.replace(batch, marks=marks)
            self.home.check()


def _profiler(
    folder: str | os.PathLike[str] | None,
) -> contextlib.AbstractContextManager:
    if folder is None:
        return contextlib.nullcontext()
    return tf.profiler.experimental.Profile(expanded(folder))
