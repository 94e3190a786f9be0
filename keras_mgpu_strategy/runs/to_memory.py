"""Runs whose results are kept in memory, or passed on as they come.

Closing the consumer closes the run, which an error would otherwise keep alive. A user's
batches are run as one stream of rows; a result has the rows of its batch.
"""

import contextlib
import dataclasses
import functools
import itertools
from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

from keras_mgpu_strategy.compute import gather, heads
from keras_mgpu_strategy.element_forms import OneBatch
from keras_mgpu_strategy.outputs.memory import collected
from keras_mgpu_strategy.runs.callbacks import (
    Verbose,
    check_verbose,
    with_callbacks,
    with_progress,
)
from keras_mgpu_strategy.runs.progress import shown_in_kernel
from keras_mgpu_strategy.runs.result_checks import Check
from keras_mgpu_strategy.runs.run import Run, Runner
from keras_mgpu_strategy.sources.marks import masked
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.messages import explaining_interrupt
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Feeding, HostBatch, Nest, RowMarks, as_tensors

_END = object()


@explaining_interrupt(
    "An interrupted run returns no results. Predictor.predict_to(path, x, resume=True) "
    "writes them as they come and can be resumed; predict_iter passes them on."
)
def collect(
    runner: Runner,
    head: heads.Head,
    x: Any,
    batch_size: int | None,
    verbose: Verbose,
    steps: int | None,
    callbacks: Any,
    pad: Pad | None,
    check: Check = iter,
) -> Nest:
    """All results, as Keras' `predict` returns them; see `Predictor.predict`."""
    level = check_verbose(verbose)
    run = runner.prepare(x, head, batch_size=batch_size, steps=steps, pad=pad)
    counts = (run.rows.source.num_rows, run.global_batch, level)
    with shown_in_kernel(run, verbose) as results:
        batches = with_progress(masked(check(results)), *counts)
        if callbacks:
            batches = with_callbacks(batches, callbacks, runner.backend.model, *counts)
        return collected(batches, run.rows.source.num_rows)


def passed_on(
    runner: Runner, x: Any, batch_size: int | None, steps: int | None, pad: Pad | None
) -> Iterator[HostBatch]:
    """Results in order, as they arrive; closing the iterator ends the run."""
    how = {"batch_size": batch_size, "steps": steps, "pad": pad}
    return _masked(runner.prepare(x, heads.identity, **how))


@short_traceback
def _masked(run: Run) -> Iterator[HostBatch]:
    with contextlib.closing(run.batches(0)) as results:
        for batch in masked(results):
            yield dataclasses.replace(batch, outputs=as_tensors(batch.outputs))


def per_batch(
    runner: Runner, batches: Iterable[Any], pad: Pad | None
) -> Iterator[Nest]:
    """The outputs of each batch, as Keras takes batches; reads the first at once."""
    stream = iter(batches)
    first = next(stream, _END)
    if first is _END:
        return iter(())
    sizes: deque[int] = deque()
    rows = itertools.chain([first], stream)
    attach = functools.partial(_recording, sizes)
    run = runner.prepare(rows, heads.identity, attach=attach, pad=pad)
    return _resplit(run, sizes)


def _recording(sizes: deque[int], source: Any) -> Any:
    """Returns a stream that adds the rows of each batch that it reads to `sizes`."""

    def add(marks: RowMarks, element: Any, first_row: int, num_rows: int) -> RowMarks:
        sizes.append(num_rows)
        return marks

    source.companions.append(add)
    return source


@short_traceback
def _resplit(run: Run, sizes: deque[int]) -> Iterator[Nest]:
    next_size = lambda: sizes.popleft() if sizes else None  # noqa: E731
    with contextlib.closing(run.batches(0)) as results:
        for part in gather.resplit(results, next_size):
            yield as_tensors(part.outputs)


def as_batch(x: Nest, feeding: Feeding) -> Any:
    """Returns x as Keras' `predict_on_batch` passes it: always as `(x,)`."""
    if feeding.own_batches:
        raise ValueError(
            "The model's class has its own `predict_on_batch`, which would not run "
            "here. Call `predict`, or the model's own method."
        )
    return x if feeding.whole is None else iter([OneBatch((x,))])
