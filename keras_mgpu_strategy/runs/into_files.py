"""The predict method whose results are written to a file.

It can be stopped at any moment and resumed. A row is in the journal only once it is
safely on disk, and an output has its name only once complete.
"""

import dataclasses
import os
from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.compute.heads import head_of
from keras_mgpu_strategy.inputs import labelled
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs.asked_columns import kept_names
from keras_mgpu_strategy.runs.asked_metrics import asked_metrics
from keras_mgpu_strategy.runs.callbacks import Verbose, check_verbose
from keras_mgpu_strategy.runs.file_writer import FileWriter
from keras_mgpu_strategy.runs.in_memory import InMemory
from keras_mgpu_strategy.runs.result_checks import result_checks
from keras_mgpu_strategy.runs.to_file import resumed, settings_of, target_of
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.signals import stopping_signals
from keras_mgpu_strategy.system.tracebacks import short_traceback


class IntoFiles(InMemory):
    """A model on every device, with `predict_to` besides the methods in memory."""

    @short_traceback
    def predict_to(
        self,
        path: str | os.PathLike[str],
        x: Any,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        *,
        method: str = "predict_proba",
        from_logits: bool = False,
        strict: bool = False,
        k: int | None = None,
        keep: str | Sequence[str] | None = None,
        labels: Any = None,
        metrics: Any = None,
        resume: bool = False,
        overwrite: bool = False,
        shard: tuple[int, int] | None = None,
        on_nonfinite: str = "warn",
        stop_on: str | Sequence[str] = (),
        pad: Pad | None = None,
    ) -> Report:
        """Writes the results of all rows to a file, in constant memory.

        The output has its name once it is complete. Until then rows are in
        `PATH.partial`, and `PATH.journal` says which are safely on disk. Ctrl-C,
        SIGTERM and SIGHUP end the run after the current batch.

        Args:
            path: The output: `.npy` (a folder if there are several outputs),
                `.parquet` (a folder), `.zarr` (a folder) or `.csv`.
            x, batch_size, steps: As in `predict`. With `batch_size`, a resumed run
                gives the same bits.
            verbose: 0 silent, 1 a bar, 2 a line every 30 s, "auto" 1 or 2; in a
                notebook a bar after a second.
            method, from_logits, strict, k: `"predict"` or another method's name, and
                its arguments.
            keep: Names of columns of x that `.parquet` and `.csv` outputs hold beside
                the results: of DataFrames (also `"index"`), dicts of arrays and
                batches of them, Arrow tables, Parquet and CSV files. They are features
                only if the model or `columns` names them.
            labels: What `metrics` compare the results with, one row per input row:
                arrays, a nest of them by output, a `pathlib.Path` or `mgpu.files`; a
                string is the name of a column of `x`. None: those of elements (x, y).
            metrics: As in `compile`: names, `keras.metrics` objects, of which copies
                are used, or functions; a dict of them by output if there are several.
                "accuracy" if there are labels. Rows that could not be read are left
                out.
            resume: Resume an earlier run; start if none; do nothing if it has finished.
            overwrite: Replace an existing output, once the new one is complete.
            shard: `(index, count)`: run one of `count` ranges of the rows.
            on_nonfinite: `"raise"`, `"warn"` or `"ignore"` NaN and infinite results.
            stop_on: Further signals that end the run: "USR1", "USR2", "XCPU", "QUIT".
            pad: As in `predict`; a resumed run begins at a window.

        Returns:
            The report of this run, with the values of `metrics` over all rows of the
            output.

        Raises:
            OSError: The output cannot be written, exists, or another run writes it.
            InterruptedError: A signal ended the run, and its handler raised nothing.
            ValueError: The earlier run was a different one, or its journal is damaged;
                the file format cannot store a result. Also as in `predict`.
        """
        runner, head = self._runner, head_of(method, from_logits=from_logits, k=k)
        check_verbose(verbose)
        check = result_checks(method, on_nonfinite, strict=strict)
        signals = stopping_signals(stop_on)
        target, journal = target_of(path, shard, resume=resume, overwrite=overwrite)
        asked = asked_metrics(labels, metrics, method, runner.backend)
        names, given = kept_names(keep, target.path), {"labels": labels}
        rows = labelled(x, given, names, steps) if asked else {"x": x, "keep": names}
        how = {"steps": steps, "shard": target.shard, "pad": pad}
        run = resumed(journal, runner, head, {**rows, **how, "batch_size": batch_size})
        settings = settings_of(run, runner, head, target, names, steps, batch_size)
        writer = FileWriter(run, target, settings, journal, asked)
        writer.write(check, verbose, signals, overwrite=overwrite)
        # The runner's own report may be from another thread.
        report = dataclasses.replace(run.clock.report(), metrics=writer.metrics)
        run.when_done(report)
        return report
