"""Runs that write to a file, and can be stopped at any moment and resumed.

A row is in the journal only once it is safely on disk, and an output has its name only
once complete. A resumed run starts at a row that began a batch, so that the file is
byte for byte that of one never stopped. However a run ends, its rows are kept.
"""

import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from typing import Any

import numpy as np

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.compute.sizes import per_replica
from keras_mgpu_strategy.formats.registry import output_format, writer_of
from keras_mgpu_strategy.inputs import labelled
from keras_mgpu_strategy.metrics.state import values_of
from keras_mgpu_strategy.outputs.interface import Column, Layout
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.shards import shard_of
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs.asked_columns import Keep, kept_names, kept_settings
from keras_mgpu_strategy.runs.asked_metrics import AskedMetrics, asked_metrics
from keras_mgpu_strategy.runs.callbacks import Verbose, check_verbose
from keras_mgpu_strategy.runs.file_writer import FileWriter
from keras_mgpu_strategy.runs.progress import show_progress
from keras_mgpu_strategy.runs.result_checks import NonFiniteRows, probabilities
from keras_mgpu_strategy.runs.run import Run, Runner
from keras_mgpu_strategy.runs.run_metrics import RunMetrics
from keras_mgpu_strategy.sources.marks import masked
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.signals import stopping_signals
from keras_mgpu_strategy.types import HostBatch

_RAGGED = Column("output", (None,), np.dtype(np.float32))
"""Stands for results that differ in length, before any of them is known."""


def predict_to(
    runner: Runner,
    path: str | os.PathLike[str],
    x: Any,
    head: Head,
    *,
    batch_size: int | None,
    verbose: Verbose,
    steps: int | None,
    strict: bool,
    keep: Keep,
    labels: Any,
    metrics: Any,
    resume: bool,
    overwrite: bool,
    shard: tuple[int, int] | None,
    on_nonfinite: str,
    stop_on: str | Sequence[str],
    pad: Pad | None,
) -> Report:
    """Writes the results of the rows not yet done; see `Predictor.predict_to`."""
    _check_how(verbose, strict, head.method)
    nonfinite, signals = NonFiniteRows(on_nonfinite), stopping_signals(stop_on)
    target, journal = _target(path, shard, resume=resume, overwrite=overwrite)
    asked = asked_metrics(labels, metrics, head.method, runner.backend)
    names, given = kept_names(keep, target.path), {"labels": labels}
    size = _first_batch(batch_size, journal, steps, pad, runner)
    rows = labelled(x, given, names, steps) if asked else {"x": x, "keep": names}
    rows |= {"batch_size": size, "steps": steps, "shard": target.shard, "pad": pad}
    run = runner.prepare(head=head, step=_earlier_step(journal, runner), **rows)
    measured = asked and RunMetrics(asked, run.rows)
    settings = _settled(head, steps, target, batch_size, runner) | _padding(run, target)
    settings |= kept_settings(run, runner, head, names, target.path)
    writer = FileWriter(run, target, settings, journal, measured)
    if journal and journal.progress and journal.progress.finished:
        return _named(run, target, journal, asked)
    with closing(run.batches(writer.start)) as results:
        batches = _checked(nonfinite.watching(results), head.method, strict)
        with closing(show_progress(batches, writer.rows, run.clock, verbose)) as shown:
            writer.write(shown, signals, overwrite=overwrite)
    return _reported(run, measured and measured.values())


def _padding(run: Run, target: Target) -> dict[str, Any]:
    """How rows are padded; ValueError if the file cannot hold what varies with them."""
    if run.padded is None:
        return {}
    if run.padded.is_ragged:
        writer_of(target.path).check(Layout(columns=(_RAGGED,)))
    return run.padded.settings


def _check_how(verbose: Verbose, strict: bool, method: str) -> None:
    check_verbose(verbose)
    if strict and method != "predict_proba":
        raise ValueError(
            f"Received strict=True with method={method!r}, whose results need not be "
            "probabilities. Use predict_proba."
        )


def _checked(
    results: Iterable[HostBatch], method: str, strict: bool
) -> Iterator[HostBatch]:
    if method == "predict_proba":
        results = probabilities(results, strict=strict)
    return masked(results, floats_only=True)


def _target(
    path: str | os.PathLike[str],
    shard: tuple[int, int] | None,
    *,
    resume: bool,
    overwrite: bool,
) -> tuple[Target, Journal | None]:
    """Where the output goes, checked before any row is run, and what to resume."""
    place, own = pathlib.Path(expanded(path)), shard_of(shard)
    writer_of(place).check(Layout(columns=()))
    target = Target(place, own, is_shared=output_format(place).is_shared)
    target.check(resume=resume, overwrite=overwrite)
    return target, (target.finished() or target.begun()) if resume else None


def _first_batch(
    batch_size: int | None,
    journal: Journal | None,
    steps: int | None,
    pad: Pad | None,
    runner: Runner,
) -> int | None:
    """The global batch of the earlier run, used if the user gives none."""
    if batch_size is not None or pad is not None:
        return batch_size
    # With steps, a batch size would also determine how many rows there are.
    if steps is not None or journal is None or journal.progress is None:
        return None
    return journal.progress.batch_size * runner.num_replicas


def _earlier_step(journal: Journal | None, runner: Runner) -> Any:
    """The step of the earlier run, if it had settled on one; for the same bits."""
    if journal is None or journal.progress is None or journal.progress.finished:
        return None
    step, choices = journal.progress.step, runner.backend.choices
    if step not in (None, *choices):
        raise ValueError(
            f"{journal.path} cannot be resumed: its rows were computed with compile="
            f"{step!r}, and those to come would be with compile={choices[0]!r}, which "
            f"rounds differently. Nothing was touched. Pass compile={step!r}, or "
            "overwrite=True to begin again."
        )
    return step


def _settled(
    head: Head,
    steps: int | None,
    target: Target,
    batch_size: int | None,
    runner: Runner,
) -> dict[str, Any]:
    """What else must be the same for a run to be resumed."""
    shard, replicas, backend = target.shard, runner.num_replicas, runner.backend
    outputs = None if backend.outputs is None else [*backend.outputs]
    settings = {
        "model": backend.digest(),
        "method": head.method,
        "from_logits": head.from_logits,
        "steps": steps,
        "format": target.path.suffix.lower(),
        "shard": shard and [shard.index, shard.count],
        "per-replica batch": batch_size and per_replica(batch_size, replicas),
    }
    # Earlier versions did not have these.
    given = {"outputs": outputs, "k": head.k, "output dtype": backend.output_dtype}
    given |= {"combine": backend.combine, "views": backend.views}
    return settings | {name: x for name, x in given.items() if x is not None}


def _named(
    run: Run, target: Target, journal: Journal, asked: AskedMetrics | None
) -> Report:
    """Gives a finished output its name, if it does not have it yet."""
    if journal.path == target.journal:
        with Lock(target.journal):
            target.place()
    record = journal.progress and journal.progress.metrics
    return _reported(run, values_of(record, asked.own) if asked and record else None)


def _reported(run: Run, metrics: dict[str, Any] | None) -> Report:
    """The report of a run; the runner's own may be from another thread."""
    report = dataclasses.replace(run.clock.report(), metrics=metrics)
    run.when_done(report)
    return report
