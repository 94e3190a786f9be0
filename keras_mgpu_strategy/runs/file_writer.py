"""Writes the results of a run to a file, and keeps its journal.

Guarantee: whatever ends the run, rows that were written are put on disk and noted
before the error or the signal goes on to the user.
"""

import contextlib
import dataclasses
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

from keras_mgpu_strategy.compute.gather import split
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.outputs.interface import FileFormat, FileSink, Layout
from keras_mgpu_strategy.outputs.journal import Journal, Progress
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.runs.content_watch import ContentWatch
from keras_mgpu_strategy.runs.progress import RowRange
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.system import signals
from keras_mgpu_strategy.system.notes import add_note
from keras_mgpu_strategy.types import HostBatch

_SECONDS_BETWEEN_FLUSHES = 2.0


@dataclasses.dataclass(frozen=True)
class Output:
    """What to write, and where.

    Args:
        job: The run.
        file_format: What kind of file to write.
        target: Where it lies.
        about: What must be the same for the run to be gone on with.
        journal: That of an earlier run to go on with, or None.
        overwrite: Whether what is there may be replaced.
        stopping: Numbers of the signals that end the run after the batch in hand.
        watch: Names what is in large files of the input.
    """

    job: Job
    file_format: FileFormat
    target: Target
    about: dict[str, Any]
    journal: Journal | None
    overwrite: bool
    stopping: tuple[int, ...]
    watch: ContentWatch

    @property
    def safe_rows(self) -> int:
        """Index behind the last row that is on disk."""
        progress = self.journal and self.journal.progress
        return progress.rows if progress else self.job.first_row

    @property
    def start(self) -> int:
        """First row to run: where a run of all rows, never stopped, begins a batch too.

        A row's last bits depend on its place in a batch of the model.
        """
        progress = self.journal and self.journal.progress
        first = self.job.first_row
        return progress.start if progress else first - first % self.job.batch_size

    @property
    def rows(self) -> RowRange:
        """The rows of the whole job, and those of this run."""
        return RowRange(self.job.first_row, self.safe_rows, self.job.source.num_rows)


class Writer:
    """Writes one output.

    Args:
        output: What to write, and where.
        shard: As in the layout of the file.
    """

    def __init__(self, output: Output, shard: Shard | None):
        self._output = output
        self._shard = shard
        self._journal = output.journal
        self._lock = Lock(output.target.journal)
        self._sink: FileSink | None = None
        self._flushed = time.monotonic()
        self._pause = _SECONDS_BETWEEN_FLUSHES
        self._chunk_start = output.start
        self._can_go_on = True

    def write(self, batches: Iterable[HostBatch]) -> None:
        """Writes all results and gives the output its name.

        Args:
            batches: The results from `output.start` on; rows that are on disk already
                are passed over.

        Raises:
            InterruptedError: A signal ended the run, and its handler raised nothing.
        """
        try:
            with signals.held_back(self._output.stopping) as held, self._kept():
                is_complete = self._write_until(batches, held)
                if is_complete:
                    self._finish()
                else:
                    self._flush()
            if not is_complete:
                raise InterruptedError(
                    f"{signal.Signals(held.signal or 0).name} ended the run of "
                    f"{self._output.target.path} before its last row."
                )
        except BaseException as error:
            self._say_how_to_go_on(error)
            raise

    def _write_until(self, batches: Iterable[HostBatch], held: signals.Held) -> bool:
        for batch in batches:
            sink = self._sink or self._open(batch)
            self._chunk_start = batch.start
            batch = rows_from(batch, sink.num_written)
            # One without rows is written too: it tells the structure of the outputs.
            sink.write(batch, self._output.job.marks(batch.start, batch.stop))
            if time.monotonic() - self._flushed > self._pause:
                self._flush()
            if held.signal is not None:
                return False
        return True

    def _open(self, batch: HostBatch) -> FileSink:
        """Begins the file, or goes on with it, once its layout is known."""
        output, layout = self._output, self._layout(batch)
        self._can_go_on = False
        output.file_format.check(layout)
        described = _described(layout)
        journal = self._journal
        if journal is not None and journal.about["layout"] != described:
            raise ValueError(
                f"{journal.path} tells of outputs {journal.about['layout']}, but this "
                f"run has {described}. Nothing was touched. Pass overwrite=True to "
                "begin again."
            )
        self._lock.claim()
        if not output.overwrite:
            output.target.check_unchanged(journal)
        if journal is not None and journal.progress is not None:
            self._lock.keep()
            mark = journal.progress.mark
            sink = output.file_format.reopen(output.target.partial, layout, mark)
        else:
            output.target.clear()
            about = {"run": output.about, "layout": described}
            self._journal = journals.create(output.target.journal, about, self._lock)
            sink = output.file_format.create(output.target.partial, layout)
        self._sink, self._can_go_on = sink, True
        output.watch.start()
        return sink

    def _layout(self, batch: HostBatch) -> Layout:
        job = self._output.job
        marks = job.marks(batch.start, batch.stop)
        shard, total = self._shard, job.total_rows or 0
        return Layout(
            columns=columns_of(batch.outputs),
            first_row=job.first_row,
            stop_row=job.source.num_rows,
            num_rows=job.total_rows,
            has_names=marks.names is not None,
            shard=None if shard is None else (shard.index, shard.count),
            row_multiple=1 if shard is None else shard.row_multiple(total),
        )

    def _flush(self, *, finished: bool = False) -> None:
        if self._sink is None or self._journal is None:
            return
        began = time.monotonic()
        if finished:
            mark, rows = self._output.target.mark(), self._sink.num_written
        else:
            mark = self._sink.flush()
            rows = mark["rows"]
        job = self._output.job
        size = job.clock.report().batch_size or job.batch_size
        start = rows - (rows - self._chunk_start) % size
        content = self._output.watch.found
        self._journal.add(Progress(rows, start, size, mark, finished, content))
        self._flushed = time.monotonic()
        # A slow disk, or thousands of files, take no more than a tenth of the time.
        self._pause = _SECONDS_BETWEEN_FLUSHES * (1 + 5 * (self._flushed - began))

    def _finish(self) -> None:
        self._flush()
        assert self._sink is not None, "a run without rows has an empty batch"
        self._sink.finish()
        self._flush(finished=True)
        self._output.target.place()
        self._can_go_on = False

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Puts on disk what was written where the block fails; then closes."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # the first error counts
                self._flush()
            raise
        finally:
            self._close()

    def _say_how_to_go_on(self, error: BaseException) -> None:
        progress = None if self._journal is None else self._journal.progress
        if progress is None or not self._can_go_on:
            return
        rows, first = progress.rows, self._output.job.first_row
        add_note(
            error,
            f"Rows {first} to {rows} are safe in {self._output.target.partial}. To go "
            "on from there, run the same with resume=True (--resume).",
        )

    def _close(self) -> None:
        self._output.watch.close()
        try:
            with contextlib.suppress(Exception):
                if self._sink is not None:
                    self._sink.close()
            if self._journal is not None:
                self._journal.close()
        finally:
            self._lock.release()


def rows_from(batch: HostBatch, start: int) -> HostBatch:
    """The rows of a batch from some index on; none where it ends before."""
    return batch if start <= batch.start else split(batch, start - batch.start)[1]


def _described(layout: Layout) -> list[list[Any]]:
    columns = [[c.name, list(c.row_shape), c.dtype.name] for c in layout.columns]
    return [*columns, *([["file", [], "name"]] if layout.has_names else [])]
