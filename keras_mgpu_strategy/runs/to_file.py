"""Runs that write to a file, and can be stopped at any moment and resumed.

```
journal of an earlier run -> first row, batch size
x -> Job -> results -> checks -> FileSink --every 2 s--> flush, journal
                                    |--at the end------> finish, the output's own name
```

Guarantees:

* A row is in the journal only once it is safely on disk, and an output has its name
  only once it is complete.
* A resumed run starts at a row that began a batch before, so that the file is byte
  for byte that of a run that was never stopped.
* However a run ends, the rows written so far are kept.
"""

import contextlib
import os
import pathlib
from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.compute.heads import head_of
from keras_mgpu_strategy.compute.sizes import per_replica
from keras_mgpu_strategy.formats.registry import output_format, writer_of
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.shards import Shard, shard_of
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs import probabilities
from keras_mgpu_strategy.runs.callbacks import Verbose, check_verbose
from keras_mgpu_strategy.runs.file_writer import Writer
from keras_mgpu_strategy.runs.nonfinite import NonFiniteRows
from keras_mgpu_strategy.runs.preparing import Runner
from keras_mgpu_strategy.runs.progress import show_progress
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.sources.marks import masked
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.signals import stopping_signals


def predict_to(
    runner: Runner,
    path: str | os.PathLike[str],
    x: Any,
    batch_size: int | None,
    verbose: Verbose,
    steps: int | None,
    method: str,
    from_logits: bool,
    strict: bool,
    resume: bool,
    overwrite: bool,
    shard: tuple[int, int] | None,
    on_nonfinite: str,
    stop_on: str | Sequence[str],
) -> Report:
    """Runs all rows, or those an earlier run left undone, and writes their results.

    The arguments are those of `Predictor.predict_to`.

    Returns:
        The report of this run only.

    Raises:
        OSError: The output cannot be written to its path, or already exists.
        ValueError: The output of an earlier run is of a different kind or damaged, or
            an argument or an input does not fit.
    """
    check_verbose(verbose)
    _check_strict(strict, method)
    looker, stopping = NonFiniteRows(on_nonfinite), stopping_signals(stop_on)
    target = _target(path, shard_of(shard), resume=resume, overwrite=overwrite)
    journal = (target.finished() or target.begun()) if resume else None
    head = head_of(method, from_logits=from_logits)
    size = _earlier_batch(journal, steps, runner) if batch_size is None else batch_size
    job = runner.job(x, size, steps, head, target.shard)
    settings = {"method": method, "from_logits": bool(from_logits), "steps": steps}
    settings |= _settled(target, batch_size, runner)
    writer = Writer(job, target, runner.digest(), settings, journal)
    if journal is not None and writer.is_finished:
        return _named(job, target, journal)
    with contextlib.closing(job.run(writer.start)) as results:
        looked = looker.watching(results)
        if method == "predict_proba":
            looked = probabilities.checked(looked, strict=strict)
        batches = masked(looked, floats_only=True)
        shown = show_progress(batches, writer.rows, job.clock, verbose)
        with contextlib.closing(shown):
            writer.write(shown, stopping, overwrite=overwrite)
    return job.clock.report()  # the runner's may be from another thread


def _check_strict(strict: bool, method: str) -> None:
    if strict and method != "predict_proba":
        raise ValueError(
            f"Received strict=True with method={method!r}, whose results need not be "
            "probabilities. Use predict_proba."
        )


def _target(
    path: str | os.PathLike[str], shard: Shard | None, *, resume: bool, overwrite: bool
) -> Target:
    """Where the output goes, checked as far as possible before any row is run."""
    place = pathlib.Path(expanded(path))
    writer_of(place).check(Layout(columns=()))
    target = Target(place, shard, is_shared=output_format(place).is_shared)
    target.check(resume=resume, overwrite=overwrite)
    return target


def _named(job: Job, target: Target, journal: Journal) -> Report:
    """Gives a finished output its name, if it does not have it yet."""
    if journal.path == target.journal:
        with Lock(target.journal):
            target.place()
    report = job.clock.report()
    job.when_done(report)
    return report


def _earlier_batch(
    journal: Journal | None, steps: int | None, runner: Runner
) -> int | None:
    """The global batch of the earlier run, used if the user gives none."""
    progress = None if journal is None else journal.progress
    # With steps, a batch size would also determine how many rows there are.
    if steps is not None or progress is None:
        return None
    return progress.batch_size * runner.num_replicas


def _settled(target: Target, batch_size: int | None, runner: Runner) -> dict[str, Any]:
    """What else must be the same for a run to be resumed."""
    shard, replicas = target.shard, runner.num_replicas
    return {
        "format": target.path.suffix.lower(),
        "shard": None if shard is None else [shard.index, shard.count],
        "per-replica batch": batch_size and per_replica(batch_size, replicas),
    }
