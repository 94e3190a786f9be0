"""Runs whose results are kept in memory, or passed on as they come.

Guarantee: closing the consumer closes the run. An error in between would otherwise keep
the run and its threads alive for as long as the error is held.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.outputs.memory import MemorySink
from keras_mgpu_strategy.runs.callbacks import (
    Verbose,
    check_verbose,
    with_callbacks,
    with_progress,
)
from keras_mgpu_strategy.runs.preparing import Runner
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.sources.marks import masked
from keras_mgpu_strategy.types import HostBatch, Nest

Check = Callable[[Iterable[HostBatch]], Iterable[HostBatch]]


def passed_on(job: Job) -> Iterator[HostBatch]:
    """Results in order, as they arrive; closing the iterator ends the run."""
    with contextlib.closing(job.run()) as results:
        yield from masked(results)


def collect(
    runner: Runner,
    x: Any,
    batch_size: int | None,
    verbose: Verbose,
    steps: int | None,
    callbacks: Any,
    head: Head,
    check: Check = iter,
) -> Nest:
    """All results, in the structure that Keras' `predict` returns.

    Args:
        runner: Runs the rows.
        x, batch_size, verbose, steps, callbacks: As in `Predictor.predict`.
        head: What is done to the outputs on the device.
        check: Checks the results and passes them on.
    """
    level = check_verbose(verbose)
    job = runner.job(x, batch_size, steps, head)
    counts = (job.source.num_rows, job.global_batch, level)
    sink = MemorySink(job.source.num_rows)
    with contextlib.closing(job.run()) as results:
        batches = with_progress(masked(check(results)), *counts)
        if callbacks:
            batches = with_callbacks(batches, callbacks, runner.backend.model, *counts)
        for batch in batches:
            sink.write(batch)
    return sink.result()
