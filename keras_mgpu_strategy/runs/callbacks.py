"""Keras' callbacks and progress bar; a standard output that fails never ends a run."""

import contextlib
import sys
import time
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import keras

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.system.kernel import in_kernel
from keras_mgpu_strategy.system.screen import Screen
from keras_mgpu_strategy.types import HostBatch, as_tensors

Verbose = int | str
_SECONDS_BETWEEN_LOOKS = 0.25


def check_verbose(verbose: Verbose) -> int:
    """Resolves `verbose` to 0, 1 or 2; "auto" is 1 on a terminal, otherwise 0."""
    if verbose == "auto":
        # A kernel's stream is no terminal, and takes 0.1 ms or more to say so.
        return int(not in_kernel() and Screen(sys.stdout).isatty())
    if verbose in (0, 1, 2):
        return int(verbose)
    raise ValueError(
        f'verbose={verbose!r}. Expected 0 (silent), 1 (a bar), 2 (a line) or "auto" '
        "(a bar on a terminal or in a notebook)."
    )


class Bar:
    """Keras' bar of batches, if `verbose`; a standard output that fails ends it.

    In a kernel, `runs/progress.py` shows a bar of rows instead.
    """

    def __init__(self, target: int | None, verbose: int) -> None:
        self._target = target
        self._bar: Any = None
        # The standard output may be any object and raise any error.
        if verbose == 2 or (verbose and not in_kernel()):
            with contextlib.suppress(Exception):
                self._bar = keras.utils.Progbar(
                    target, verbose=verbose, unit_name="batch"
                )

    @property
    def is_shown(self) -> bool:
        """Whether there is a bar to move."""
        return self._bar is not None

    def show(
        self, done: int, values: Mapping[str, Any] | None = None, *, is_last: bool
    ) -> None:
        """Shows how many batches are done, and what is known of them."""
        bar, values = self._bar, values or {}
        if bar is None or (done == self._target and not is_last):
            return
        self._bar = None
        with contextlib.suppress(Exception):
            if is_last:
                # As Keras does if the length is unknown: or there is no last line.
                bar.target = done
            bar.stateful_metrics = {*values}  # they are means already
            bar.update(done, list(values.items()), finalize=is_last)
            self._bar = bar


def with_progress(
    batches: Iterable[HostBatch], num_rows: int | None, batch_size: int, verbose: int
) -> Iterator[HostBatch]:
    """Passes batches on and moves a bar that counts global batches."""
    target = None if num_rows is None else max(ceil_div(num_rows, batch_size), 1)
    done, bar = 0, Bar(target, verbose)
    for batch in batches:
        yield batch
        done = max(ceil_div(batch.stop, batch_size), 1)
        bar.show(done, is_last=False)
    bar.show(done, is_last=True)


def with_callbacks(
    batches: Iterable[HostBatch],
    callbacks: Any,
    model: Any,
    num_rows: int | None,
    batch_size: int,
    verbose: int = 0,
) -> Iterator[HostBatch]:
    """Shows global batches to Keras callbacks, which may set `stop_predicting`."""
    steps = None if num_rows is None else ceil_div(num_rows, batch_size)
    callbacks = _as_list(callbacks, model, steps, verbose)
    model.stop_predicting = False
    callbacks.on_predict_begin()
    for step, batch in enumerate(gather.resplit(batches, lambda: batch_size)):
        if batch.num_rows:
            callbacks.on_predict_batch_begin(step)
            callbacks.on_predict_batch_end(step, {"outputs": as_tensors(batch.outputs)})
        # Without any row, the empty batch gives the structure of the results.
        if batch.num_rows or batch.start == 0:
            yield batch
        if model.stop_predicting:
            break
    callbacks.on_predict_end()


class EvaluationWatch:
    """Shows an evaluation to Keras callbacks, which may set `stop_evaluating`."""

    def __init__(
        self, callbacks: Any, model: Any, num_batches: int | None, verbose: int
    ) -> None:
        self._model = model  # None without callbacks
        self._callbacks = _as_list(callbacks or [], model, num_batches, verbose)
        self._bar = Bar(num_batches, verbose)
        self._shown_at = time.monotonic()

    def begin(self) -> None:
        """Called before the first batch."""
        if self._model is not None:
            self._model.stop_evaluating = False
        self._callbacks.on_test_begin()

    def before(self, step: int) -> None:
        """Called before the batch of that number, or several from it on."""
        self._callbacks.on_test_batch_begin(step)

    def is_due(self) -> bool:
        """Whether there is something to show: after each batch, or now and then."""
        is_late = time.monotonic() - self._shown_at > _SECONDS_BETWEEN_LOOKS
        return self._model is not None or (self._bar.is_shown and is_late)

    def after(self, done: int, logs: dict[str, Any]) -> None:
        """Called after the batches before `done`, with loss and metrics so far."""
        self._shown_at = time.monotonic()
        self._callbacks.on_test_batch_end(done - 1, logs)
        self._bar.show(done, logs, is_last=False)

    def is_stopped(self) -> bool:
        """Whether a callback ended the run."""
        return self._model is not None and self._model.stop_evaluating

    def end(self, done: int, logs: dict[str, Any]) -> None:
        """Called after the last batch, with the results."""
        self._callbacks.on_test_end(logs)
        self._bar.show(done, logs, is_last=True)


def _as_list(callbacks: Any, model: Any, steps: int | None, verbose: int) -> Any:
    if isinstance(callbacks, keras.callbacks.CallbackList):
        return callbacks
    listed = callbacks if isinstance(callbacks, Sequence) else [callbacks]
    params: dict[str, Any] = {"verbose": verbose, "epochs": 1, "steps": steps}
    return keras.callbacks.CallbackList(list(listed), model=model, **params)
