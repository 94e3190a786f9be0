"""Runs whose results are all kept in memory."""

from collections.abc import Iterable
from typing import Any

from keras_mgpu_strategy import callbacks as listeners
from keras_mgpu_strategy.engines.backend import Backend
from keras_mgpu_strategy.job import Job
from keras_mgpu_strategy.marking import masked
from keras_mgpu_strategy.sinks.memory import MemorySink
from keras_mgpu_strategy.types import HostBatch, Nest


def collect(
    job: Job,
    batches: Iterable[HostBatch],
    backend: Backend,
    verbose: listeners.Verbose,
    callbacks: Any,
) -> Nest:
    """All results, in the structure that Keras' `predict` returns.

    Args:
        job: The run.
        batches: Its results, checked as the method wants.
        backend: Has the Keras model that callbacks see.
        verbose, callbacks: As for `Predictor.predict`.
    """
    num_rows, level = job.source.num_rows, listeners.check_verbose(verbose)
    counts = (num_rows, job.global_batch, level)
    batches = listeners.with_progress(masked(batches, job.marks), *counts)
    if callbacks:
        batches = listeners.with_callbacks(batches, callbacks, backend.model, *counts)
    sink = MemorySink(num_rows)
    for batch in batches:
        sink.write(batch)
    return sink.result()
