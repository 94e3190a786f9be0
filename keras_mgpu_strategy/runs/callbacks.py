"""Keras' callbacks and progress bar; a standard output that fails never ends a run."""

import contextlib
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import keras

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.system.screen import Screen
from keras_mgpu_strategy.types import HostBatch

Verbose = int | str


def check_verbose(verbose: Verbose) -> int:
    """Resolves `verbose` to 0, 1 or 2; "auto" is 1 on a terminal, otherwise 0."""
    if verbose == "auto":
        return int(Screen(sys.stdout).isatty())
    if verbose in (0, 1, 2):
        return int(verbose)
    raise ValueError(
        f'verbose={verbose!r}. Expected 0 (silent), 1 (a bar), 2 (a line) or "auto" '
        "(a bar on a terminal)."
    )


def with_progress(
    batches: Iterable[HostBatch], num_rows: int | None, batch_size: int, verbose: int
) -> Iterator[HostBatch]:
    """Passes batches on and moves a bar that counts global batches."""
    if verbose == 0:
        yield from batches
        return
    target = None if num_rows is None else max(ceil_div(num_rows, batch_size), 1)
    done, bar = 0, None
    # The standard output may be any object and raise any error.
    with contextlib.suppress(Exception):
        bar = keras.utils.Progbar(target, verbose=verbose, unit_name="batch")
    for batch in batches:
        yield batch
        done = max(ceil_div(batch.stop, batch_size), 1)
        if bar is not None and done != target:
            bar = _moved(bar, done)
    if bar is not None:
        # As Keras does if the length is unknown: otherwise there is no last line.
        bar.target = done
        _moved(bar, done, finalize=True)


def _moved(bar: Any, done: int, *, finalize: bool = False) -> Any:
    """Returns the bar, or None if the standard output failed."""
    with contextlib.suppress(Exception):
        bar.update(done, finalize=finalize)
        return bar
    return None


def with_callbacks(
    batches: Iterable[HostBatch],
    callbacks: Any,
    model: Any,
    num_rows: int | None,
    batch_size: int,
    verbose: int = 0,
) -> Iterator[HostBatch]:
    """Shows global batches to Keras callbacks, which may set `stop_predicting`."""
    if not isinstance(callbacks, keras.callbacks.CallbackList):
        listed = callbacks if isinstance(callbacks, Sequence) else [callbacks]
        steps = None if num_rows is None else ceil_div(num_rows, batch_size)
        params: dict[str, Any] = {"verbose": verbose, "epochs": 1, "steps": steps}
        callbacks = keras.callbacks.CallbackList(list(listed), model=model, **params)
    model.stop_predicting = False
    callbacks.on_predict_begin()
    for step, batch in enumerate(gather.resplit(batches, lambda: batch_size)):
        if batch.num_rows:
            callbacks.on_predict_batch_begin(step)
            callbacks.on_predict_batch_end(step, {"outputs": batch.outputs})
        # Without any row, the empty batch gives the structure of the results.
        if batch.num_rows or batch.start == 0:
            yield batch
        if model.stop_predicting:
            break
    callbacks.on_predict_end()
