"""Runs that write to a file, and can be stopped at any moment and gone on with.

```
journal of an earlier run -> first row, batch size
x -> Job -> results -> checks -> FileSink --every 2 s--> flush, journal
                                    |--at the end------> finish, the output's own name
```

Guarantees:

* A row is in the journal only once it is safely on disk, and an output has its name
  only once it is complete.
* A run that is gone on with starts at a row that began a batch before, so that the
  file is byte for byte that of a run that was never stopped.
* However a run ends, the rows that were written before are kept.
"""

import contextlib
import dataclasses
import os
import pathlib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.methods import head_of
from keras_mgpu_strategy.compute.sizes import per_replica
from keras_mgpu_strategy.formats.writable import format_of, shards_share
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.journal import Journal
from keras_mgpu_strategy.outputs.lock import Lock
from keras_mgpu_strategy.outputs.shards import Shard, shard_of
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs import probabilities
from keras_mgpu_strategy.runs.callbacks import Verbose, check_verbose
from keras_mgpu_strategy.runs.content_watch import ContentWatch
from keras_mgpu_strategy.runs.file_writer import Output, Writer
from keras_mgpu_strategy.runs.fingerprint import check_same, fingerprint
from keras_mgpu_strategy.runs.nonfinite import NonFiniteRows
from keras_mgpu_strategy.runs.preparing import Runner
from keras_mgpu_strategy.runs.progress import show_progress
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.sources.marks import masked
from keras_mgpu_strategy.system.home_folder import expanded
from keras_mgpu_strategy.system.signals import stopping_signals
from keras_mgpu_strategy.types import HostBatch, Origin


@dataclasses.dataclass(frozen=True)
class Request:
    """A run that writes to a file, as a user asks for it.

    Args:
        output: The output; its suffix says what kind of file.
        x, batch_size, verbose, steps: As for `Predictor.predict`.
        method: Name of the Predictor's method, part of what resuming compares.
        from_logits: Whether the model's outputs are logits.
        strict: Whether results that must be probabilities and are not are an error.
        resume: Go on with an earlier run of the same kind.
        overwrite: Replace what is there.
        shard: Index and count of the range of the rows to run; None for all.
        on_nonfinite: What to do about NaN and infinite results.
        stop_on: Names of signals that end the run, besides the usual ones.
    """

    output: str | os.PathLike[str]
    x: Any
    batch_size: int | None
    verbose: Verbose
    steps: int | None
    method: str
    from_logits: bool
    strict: bool
    resume: bool
    overwrite: bool
    shard: tuple[int, int] | None
    on_nonfinite: str
    stop_on: str | Sequence[str]

    @property
    def path(self) -> pathlib.Path:
        """The output."""
        return pathlib.Path(expanded(self.output))

    @property
    def head(self) -> heads.Head:
        """What is done to the outputs on the device."""
        return head_of(self.method, from_logits=self.from_logits)

    @property
    def range(self) -> Shard | None:
        """The shard, checked."""
        return shard_of(self.shard)


def predict_to(runner: Runner, request: Request) -> Report:
    """Runs all rows, or those that an earlier run left, and writes their results.

    Args:
        runner: Runs the rows.
        request: What to run and where to write it.

    Returns:
        The report of this run alone.

    Raises:
        OSError: The output cannot be written where it should be, or is there already.
        ValueError: The output of an earlier run is of another kind or damaged, or a
            value of the request or an input does not fit.
    """
    check_verbose(request.verbose)
    _check_strict(request)
    looker = NonFiniteRows(request.on_nonfinite)
    output = _output(runner, request)
    journal = output.journal
    if journal is not None and journal.progress and journal.progress.finished:
        if journal.path == output.target.journal:
            with Lock(output.target.journal):
                output.target.place()
        report = output.job.clock.report()
        output.job.when_done(report)
        return report
    with contextlib.closing(output.job.run(output.start)) as results:
        checked = _checked(results, request, output.job, looker)
        shown = show_progress(checked, output.rows, output.job.clock, request.verbose)
        with contextlib.closing(shown):
            Writer(output, request.range).write(shown)
    return output.job.clock.report()  # the runner's may be that of another thread


def _check_strict(request: Request) -> None:
    if request.strict and request.method != "predict_proba":
        raise ValueError(
            f"Received strict=True with method={request.method!r}, whose results need "
            "not be probabilities. Use predict_proba."
        )


def _output(runner: Runner, request: Request) -> Output:
    """Checks everything that can be checked before the first row."""
    stopping = stopping_signals(request.stop_on)
    file_format = format_of(request.path)
    file_format.check(Layout(columns=()))
    target = Target(request.path, request.range, is_shared=shards_share(request.path))
    target.check(resume=request.resume, overwrite=request.overwrite)
    journal = (target.finished() or target.begun()) if request.resume else None
    job = _job(runner, request, journal)
    origin = job.origin_of()
    about = _about(runner, request, job, origin)
    if journal is not None:
        check_same(journal, about, origin)
    overwrite = request.overwrite
    known = journal and journal.progress and journal.progress.content
    watch = ContentWatch(origin.digest, known)
    return Output(job, file_format, target, about, journal, overwrite, stopping, watch)


def _checked(
    batches: Iterable[HostBatch], request: Request, job: Job, looker: NonFiniteRows
) -> Iterator[HostBatch]:
    """Looks at values in the order in which a user wants to hear of them."""
    looked = looker.watching(batches, job.marks)
    if request.method == "predict_proba":
        looked = probabilities.checked(looked, strict=request.strict)
    return masked(looked, job.marks, floats_only=True)


def _job(runner: Runner, request: Request, journal: Journal | None) -> Job:
    """The job; with the batch of the earlier run where the user gives none."""
    batch_size = request.batch_size
    progress = None if journal is None else journal.progress
    # With steps, a batch size would also say how many rows there are.
    if batch_size is None and request.steps is None and progress is not None:
        batch_size = progress.batch_size * runner.num_replicas
    return runner.job(request.x, batch_size, request.steps, request.head, request.range)


def _about(
    runner: Runner, request: Request, job: Job, origin: Origin
) -> dict[str, Any]:
    """What must be the same for a run to be gone on with."""
    batch, shard = request.batch_size, request.range
    settings = {
        "method": request.method,
        "from_logits": bool(request.from_logits),
        "format": request.path.suffix.lower(),
        "shard": None if shard is None else [shard.index, shard.count],
        "steps": request.steps,
        "per-replica batch": batch and per_replica(batch, runner.num_replicas),
    }
    return fingerprint(runner.digest(), job, origin, settings)
