"""Runs whose results are kept in memory, or passed on as they come.

Guarantee: a run ends with whoever takes its results. An error on the way would else
hold the run, and its threads, for as long as it is looked at.
"""

import contextlib
from collections.abc import Callable, Iterable, Iterator
from typing import Any

from keras_mgpu_strategy.engines.backend import Backend
from keras_mgpu_strategy.outputs.memory import MemorySink
from keras_mgpu_strategy.runs import callbacks as listeners
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.sources.marks import masked
from keras_mgpu_strategy.types import HostBatch, Nest

Check = Callable[[Iterable[HostBatch]], Iterable[HostBatch]]


def passed_on(job: Job) -> Iterator[HostBatch]:
    """Results in order, as they arrive; closing the iterator ends the run."""
    with contextlib.closing(job.run()) as results:
        yield from masked(results, job.marks)


def collect(
    job: Job,
    backend: Backend,
    verbose: int,
    callbacks: Any,
    check: Check = iter,
) -> Nest:
    """All results, in the structure that Keras' `predict` returns.

    Args:
        job: The run.
        backend: Has the Keras model that callbacks see.
        verbose: 0, 1 or 2.
        callbacks: As for `Predictor.predict`.
        check: Looks at the results and passes them on.
    """
    counts = (job.source.num_rows, job.global_batch, verbose)
    sink = MemorySink(job.source.num_rows)
    with contextlib.closing(job.run()) as results:
        batches = masked(check(results), job.marks)
        batches = listeners.with_progress(batches, *counts)
        if callbacks:
            seen = (callbacks, backend.model, *counts)
            batches = listeners.with_callbacks(batches, *seen)
        for batch in batches:
            sink.write(batch)
    return sink.result()
