"""Writes a run's results and its journal; whatever ends the run, they are kept.

A resumed run starts at a row that began a batch, so that the file is byte for byte that
of one never stopped.
"""

import contextlib
import signal
import time
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from keras_mgpu_strategy.compute.gather import rows_from
from keras_mgpu_strategy.formats.registry import writer_of
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.columns import columns_of, describe
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.journal import Journal, Progress
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.row_sink import RowSink
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.runs.asked_metrics import AskedMetrics
from keras_mgpu_strategy.runs.callbacks import Verbose
from keras_mgpu_strategy.runs.fingerprint import ContentWatch, check_same, fingerprint
from keras_mgpu_strategy.runs.progress import RowRange, show_progress
from keras_mgpu_strategy.runs.result_checks import Check
from keras_mgpu_strategy.runs.run import Run
from keras_mgpu_strategy.runs.run_metrics import RunMetrics
from keras_mgpu_strategy.sources.kept import schema_of
from keras_mgpu_strategy.sources.origins import origin_of
from keras_mgpu_strategy.system import signals
from keras_mgpu_strategy.types import HostBatch

_SECONDS_BETWEEN_FLUSHES = 2.0


class FileWriter:
    """Writes the results of one run; refuses a `journal` of a different run."""

    def __init__(
        self,
        run: Run,
        target: Target,
        settings: dict[str, Any],
        journal: Journal | None,
        asked: AskedMetrics | None,
    ):
        origin = origin_of(run.rows.whole)
        self._metrics = metrics = RunMetrics(asked, run.rows) if asked else None
        if metrics is not None:
            settings = {**settings, **metrics.settings}
        self._about = fingerprint(run.rows, origin, settings)
        if journal is not None:
            check_same(journal, self._about, origin)
        self._run, self._target, self._journal = run, target, journal
        first, before = run.rows.first_row, journal and journal.progress
        self._watch = ContentWatch(origin, before and before.content)
        # A row's last bits depend on its position in a batch of the model, so rows
        # are run from one on at which an uninterrupted run also begins a batch.
        size = 1 if run.padded else run.batch_size  # a shard begins at a window
        self._start = before.start if before else first - first % size
        self._rows = RowRange(
            first, before.rows if before else first, run.rows.source.num_rows
        )
        if metrics is not None:
            metrics.resume(before and before.metrics, self._start)
        self._lock = Lock(target.journal)
        self._sink: RowSink | None = None
        self._flushed = time.monotonic()
        self._pause = _SECONDS_BETWEEN_FLUSHES
        self._chunk_starts = deque([self._start])
        self._can_resume = True

    @property
    def metrics(self) -> dict[str, Any] | None:
        """The values of the metrics of all rows; None if none are asked for."""
        return self._metrics and self._metrics.values()

    def write(
        self,
        check: Check,
        verbose: Verbose,
        stopping: tuple[int, ...],
        *,
        overwrite: bool,
    ) -> None:
        """Writes what is not yet done; an `InterruptedError` if a signal ends that."""
        journal, run = self._journal, self._run
        if journal and journal.progress and journal.progress.finished:
            if journal.path == self._target.journal:  # it lacks its name
                with self._lock:
                    self._target.place()
            return
        try:
            with (
                contextlib.closing(run.batches(self._start)) as results,
                contextlib.closing(
                    show_progress(check(results), self._rows, run.clock, verbose)
                ) as shown,
                signals.held_back(stopping) as held,
                self._kept(),
            ):
                is_complete = self._write_until(shown, held, overwrite)
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
            self._chunk_starts.append(batch.start)
            # An empty one is written too: it gives the structure of the outputs.
            sink.write(rows_from(batch, sink.num_written))
            if self._metrics is not None:
                self._metrics.add(batch)
            if time.monotonic() - self._flushed > self._pause:
                self._flush()
            if held.signal is not None:
                return False
        return True

    def _open(self, batch: HostBatch, overwrite: bool) -> RowSink:
        target, layout, journal = self._target, self._layout(batch), self._journal
        file_format, described = writer_of(target.path), describe(layout)
        self._can_resume = False
        file_format.check(layout)
        if self._metrics is not None:
            self._metrics.begin(batch, in_shards=target.shard is not None)
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
            self._sink = file_format.reopen(
                target.partial, layout, journal.progress.mark
            )
        else:
            target.clear()
            about = {"run": self._about, "layout": described}
            self._journal = journals.create(target.journal, about, self._lock)
            self._sink = file_format.create(target.partial, layout)
        self._can_resume = True
        self._watch.start()
        return self._sink

    def _layout(self, batch: HostBatch) -> Layout:
        rows, shard = self._run.rows, self._target.shard
        num_rows, multiple = rows.whole.num_rows, 1
        if shard is not None:
            multiple = shard.row_multiple(num_rows or 0, rows.window)
        return Layout(
            columns=columns_of(batch.outputs),
            first_row=rows.first_row,
            stop_row=rows.source.num_rows,
            num_rows=num_rows,
            has_names=batch.marks.names is not None,
            shard=shard,
            kept=schema_of(rows.whole),
            row_tokens=max(rows.longest // 4, 1),
            row_multiple=multiple,
        )

    def _flush(self, *, finished: bool = False) -> None:
        if self._sink is None or self._journal is None:
            return
        began = time.monotonic()
        mark = self._target.mark() if finished else self._sink.flush()
        rows = self._sink.num_written
        size = self._run.clock.report().batch_size or self._run.batch_size
        metrics, counted = None, rows
        if self._metrics is not None:
            metrics = self._metrics.record(always=finished)
            counted = min(rows, self._metrics.recorded)
        start = self._batch_start(counted, size)
        known = (self._watch.found, metrics, self._run.clock.settled_step(rows))
        self._journal.add(Progress(rows, start, size, mark, finished, *known))
        self._flushed = time.monotonic()
        # Slow disks and thousands of files take no more than a tenth of the time.
        self._pause = _SECONDS_BETWEEN_FLUSHES * (1 + 5 * (self._flushed - began))

    def _batch_start(self, row: int, size: int) -> int:
        """Where the last batch that begins at or before a row began, or its window."""
        chunks = self._chunk_starts
        while len(chunks) > 1 and chunks[1] <= row:
            chunks.popleft()
        return chunks[0] if self._run.padded else row - (row - chunks[0]) % size

    def _finish(self) -> None:
        if self._metrics is not None:
            self._metrics.end()
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
            self._watch.close()
            with contextlib.ExitStack() as last:
                last.callback(self._lock.release)
                with contextlib.suppress(Exception):
                    if self._sink is not None:
                        self._sink.close()
                if self._metrics is not None:
                    last.callback(self._metrics.close)
                if self._journal is not None:
                    self._journal.close()

    def _say_how_to_resume(self, error: BaseException) -> None:
        progress = self._journal and self._journal.progress
        if progress and self._can_resume:
            error.add_note(
                f"Rows {self._rows.first} to {progress.rows} are safe in "
                f"{self._target.partial}. To resume from there, run the same with "
                "resume=True (--resume)."
            )
        elif self._can_resume and isinstance(error, KeyboardInterrupt):
            error.add_note("No row is safe yet. To start again, run the same.")
