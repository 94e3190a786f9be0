"""Writes the results of a run to a file, and keeps its journal.

Guarantee: whatever ends the run, rows that were written are put on disk and recorded
before the error or the signal reaches the user.
"""

import contextlib
import signal
import time
from collections.abc import Iterable, Iterator
from typing import Any

from keras_mgpu_strategy.compute.gather import rows_from
from keras_mgpu_strategy.formats.registry import writer_of
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.columns import columns_of, describe
from keras_mgpu_strategy.outputs.interface import FileSink, Layout
from keras_mgpu_strategy.outputs.journal import Journal, Progress
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.runs.content_watch import ContentWatch
from keras_mgpu_strategy.runs.fingerprint import check_same, fingerprint
from keras_mgpu_strategy.runs.progress import RowRange
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.system import signals
from keras_mgpu_strategy.types import HostBatch

_SECONDS_BETWEEN_FLUSHES = 2.0


class Writer:
    """Writes the results of one run.

    Args:
        job: The run.
        target: Where the output is.
        model: Digest of the model.
        settings: Names and values of what else must be the same for a run to be
            resumed.
        journal: The journal of an earlier run to resume, or None.

    Raises:
        ValueError: The earlier run was a different one.
    """

    def __init__(
        self,
        job: Job,
        target: Target,
        model: str,
        settings: dict[str, Any],
        journal: Journal | None,
    ):
        origin = job.origin_of()
        self._about = fingerprint(model, job, origin, settings)
        if journal is not None:
            check_same(journal, self._about, origin)
        self._job, self._target, self._journal = job, target, journal
        progress = None if journal is None else journal.progress
        self._before = progress
        self._watch = ContentWatch(origin.digest, progress and progress.content)
        self._lock = Lock(target.journal)
        self._sink: FileSink | None = None
        self._flushed = time.monotonic()
        self._pause = _SECONDS_BETWEEN_FLUSHES
        self._chunk_start = self.start
        self._can_resume = True

    @property
    def is_finished(self) -> bool:
        """Whether the earlier run wrote all rows."""
        return self._before is not None and self._before.finished

    @property
    def start(self) -> int:
        """First row to run, at which an uninterrupted run also begins a batch.

        A row's last bits depend on its position in a batch of the model.
        """
        first = self._job.first_row
        if self._before is not None:
            return self._before.start
        return first - first % self._job.batch_size

    @property
    def rows(self) -> RowRange:
        """The rows of the whole output, and those of this run."""
        first = self._job.first_row
        safe = first if self._before is None else self._before.rows
        return RowRange(first, safe, self._job.source.num_rows)

    def write(
        self,
        batches: Iterable[HostBatch],
        stopping: tuple[int, ...],
        *,
        overwrite: bool,
    ) -> None:
        """Writes all results and gives the output its name.

        Args:
            batches: The results from `start` onwards; rows already on disk are
                skipped.
            stopping: Numbers of the signals that end the run after the current batch.
            overwrite: Whether an existing output may be replaced.

        Raises:
            InterruptedError: A signal ended the run, and its handler raised nothing.
        """
        try:
            with signals.held_back(stopping) as held, self._kept():
                is_complete = self._write_until(batches, held, overwrite)
                if is_complete:
                    self._finish()
                else:
                    self._flush()
            if not is_complete:
                raise InterruptedError(
                    f"{signal.Signals(held.signal or 0).name} ended the run of "
                    f"{self._target.path} before its last row."
                )
        except BaseException as error:
            self._say_how_to_resume(error)
            raise

    def _write_until(
        self, batches: Iterable[HostBatch], held: signals.Held, overwrite: bool
    ) -> bool:
        for batch in batches:
            sink = self._sink or self._open(batch, overwrite)
            self._chunk_start = batch.start
            batch = rows_from(batch, sink.num_written)
            # An empty one is written too: it gives the structure of the outputs.
            sink.write(batch)
            if time.monotonic() - self._flushed > self._pause:
                self._flush()
            if held.signal is not None:
                return False
        return True

    def _open(self, batch: HostBatch, overwrite: bool) -> FileSink:
        """Creates the file, or resumes it, once its layout is known."""
        target, layout = self._target, self._layout(batch)
        file_format = writer_of(target.path)
        self._can_resume = False
        file_format.check(layout)
        described = describe(layout)
        journal = self._journal
        if journal is not None and journal.about["layout"] != described:
            raise ValueError(
                f"{journal.path} records outputs {journal.about['layout']}, but this "
                f"run has {described}. Nothing was touched. Pass overwrite=True to "
                "begin again."
            )
        self._lock.claim()
        if not overwrite:
            target.check_unchanged(journal)
        if journal is not None and journal.progress is not None:
            self._lock.keep()
            mark = journal.progress.mark
            sink = file_format.reopen(target.partial, layout, mark)
        else:
            target.clear()
            about = {"run": self._about, "layout": described}
            self._journal = journals.create(target.journal, about, self._lock)
            sink = file_format.create(target.partial, layout)
        self._sink, self._can_resume = sink, True
        self._watch.start()
        return sink

    def _layout(self, batch: HostBatch) -> Layout:
        job, shard = self._job, self._target.shard
        total = job.total_rows or 0
        return Layout(
            columns=columns_of(batch.outputs),
            first_row=job.first_row,
            stop_row=job.source.num_rows,
            num_rows=job.total_rows,
            has_names=batch.marks.names is not None,
            shard=shard,
            row_multiple=1 if shard is None else shard.row_multiple(total),
        )

    def _flush(self, *, finished: bool = False) -> None:
        if self._sink is None or self._journal is None:
            return
        began = time.monotonic()
        if finished:
            mark, rows = self._target.mark(), self._sink.num_written
        else:
            mark = self._sink.flush()
            rows = mark["rows"]
        job = self._job
        size = job.clock.report().batch_size or job.batch_size
        start = rows - (rows - self._chunk_start) % size
        content = self._watch.found
        self._journal.add(Progress(rows, start, size, mark, finished, content))
        self._flushed = time.monotonic()
        # Slow disks and thousands of files take no more than a tenth of the time.
        self._pause = _SECONDS_BETWEEN_FLUSHES * (1 + 5 * (self._flushed - began))

    def _finish(self) -> None:
        self._flush()
        assert self._sink is not None, "a run without rows has an empty batch"
        self._sink.finish()
        self._flush(finished=True)
        self._target.place()
        self._can_resume = False

    @contextlib.contextmanager
    def _kept(self) -> Iterator[None]:
        """Puts on disk what was written if the block fails; then closes."""
        try:
            yield
        except BaseException:
            with contextlib.suppress(Exception):  # the first error matters
                self._flush()
            raise
        finally:
            self._close()

    def _say_how_to_resume(self, error: BaseException) -> None:
        progress = None if self._journal is None else self._journal.progress
        if progress is None or not self._can_resume:
            return
        rows, first = progress.rows, self._job.first_row
        error.add_note(
            f"Rows {first} to {rows} are safe in {self._target.partial}. To "
            "resume from there, run the same with resume=True (--resume).",
        )

    def _close(self) -> None:
        self._watch.close()
        try:
            with contextlib.suppress(Exception):
                if self._sink is not None:
                    self._sink.close()
            if self._journal is not None:
                self._journal.close()
        finally:
            self._lock.release()
