"""The predict methods whose results are kept in memory, or passed on as they come."""

import functools
import os
from collections.abc import Iterable, Iterator
from typing import Any

from keras_mgpu_strategy.compute.heads import head_of
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.report import Report
from keras_mgpu_strategy.runs.callbacks import Verbose
from keras_mgpu_strategy.runs.result_checks import probabilities
from keras_mgpu_strategy.runs.run import Runner
from keras_mgpu_strategy.runs.to_memory import as_batch, collect, passed_on, per_batch
from keras_mgpu_strategy.runs.tuning import TuningFile
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.fork_guard import StaysHere
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import HostBatch, Nest


class InMemory(StaysHere):
    """A model on every device, its methods that return results, and its last report."""

    def __init__(
        self,
        backend: Backend,
        profile: str | os.PathLike[str] | None,
        tuning: TuningFile | None = None,
    ):
        self._runner = Runner(backend, profile, tuning)

    @property
    def model(self) -> Any:
        """The model whose variables live on every device; `fit` and `evaluate` work."""
        return self._runner.backend.model

    @property
    def strategy(self) -> Any:
        """The `tf.distribute.Strategy` over the devices."""
        return self._runner.backend.strategy

    @property
    def devices(self) -> tuple[str, ...]:
        """Full name of each replica's device."""
        return self._runner.backend.devices

    @property
    def num_replicas(self) -> int:
        """How many replicas there are."""
        return self._runner.num_replicas

    @property
    def report(self) -> Report | None:
        """Report of the run that ended last, in any thread; None before the first."""
        return self._runner.report

    @short_traceback
    def predict(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        pad: Pad | None = None,
    ) -> Nest:
        """Outputs for all rows, as `keras.Model.predict` returns them.

        Args:
            x: The rows; see `Predictor`.
            batch_size: Rows of a global batch, split over the replicas and rounded up
                so that none idles. None tries sizes, unless the engine is "mirrored".
            verbose: 0 silent, 1 a bar, 2 a line, "auto" a bar on a terminal, or in a
                notebook after a second.
            steps: Batches to draw from `x`; None draws all.
            callbacks: Keras callbacks, called for each global batch.
            pad: How rows of unequal length are padded; None: all have one length.

        Returns:
            Nest of NumPy arrays of shape `(num_rows, ...)`, structured as the model's
            outputs; a `tf.RaggedTensor` if rows differ in shape, as from Keras.

        Raises:
            TypeError: The inputs are of a type that cannot be read.
            ValueError: The inputs do not fit the model, each other or `batch_size`.
        """
        how = (batch_size, verbose, steps, callbacks, pad)
        return collect(self._runner, head_of("predict"), x, *how)

    @short_traceback
    def predict_proba(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        from_logits: bool = False,
        strict: bool = False,
        pad: Pad | None = None,
    ) -> Nest:
        """Class probabilities for all rows; `predict` with a check of the values.

        Args:
            x, batch_size, verbose, steps, callbacks: As in `predict`.
            from_logits: Apply a softmax (a sigmoid if there is one column) on the
                device.
            strict: Raise at the first value outside [0, 1], instead of one warning.
            pad: As in `predict`.

        Returns:
            As in `predict`.

        Raises:
            ValueError: With `strict`, a value is outside [0, 1]. Also as in `predict`.
        """
        head = head_of("predict_proba", from_logits=from_logits)
        check = functools.partial(probabilities, strict=strict)
        how = (batch_size, verbose, steps, callbacks, pad, check)
        return collect(self._runner, head, x, *how)

    @short_traceback
    def predict_classes(
        self,
        x: Any,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        from_logits: bool = False,
        pad: Pad | None = None,
    ) -> Nest:
        """Class of each row, found on the device so that only ids reach the host.

        Args:
            x, batch_size, verbose, steps, callbacks: As in `predict`.
            from_logits: One column counts as class 1 above 0 rather than above 0.5.
            pad: As in `predict`.

        Returns:
            As in Keras 2: index of the largest value, int64 of shape `(num_rows,)`;
            if there is one column, int32 of shape `(num_rows, 1)`.
        """
        head = head_of("predict_classes", from_logits=from_logits)
        how = (batch_size, verbose, steps, callbacks, pad)
        return collect(self._runner, head, x, *how)

    @short_traceback
    def predict_top_k(
        self,
        x: Any,
        k: int = 5,
        batch_size: int | None = None,
        verbose: Verbose = "auto",
        steps: int | None = None,
        callbacks: Any = None,
        *,
        from_logits: bool = False,
        pad: Pad | None = None,
    ) -> Nest:
        """The k best classes of each row, found on the device; only they are copied.

        Args:
            x: As in `predict`.
            k: How many classes, at least 1 and at most as many as there are.
            batch_size, verbose, steps, callbacks: As in `predict`.
            from_logits: Apply a softmax on the device first.
            pad: As in `predict`.

        Returns:
            In place of each output, a dict of `classes` (int32) and `scores` (of its
            dtype), both of shape `(num_rows, k)`, by descending score; of equal scores
            the lower class comes first. NaN counts as infinity. Outputs of shape
            `(num_rows, ..., classes)` give `(num_rows, ..., k)`.

        Raises:
            TypeError: `k` is not an integer.
            ValueError: `k` is below 1 or above the number of classes, or there is only
                one column. Also as in `predict`.
        """
        head = head_of("predict_top_k", from_logits=from_logits, k=k)
        how = (batch_size, verbose, steps, callbacks, pad)
        return collect(self._runner, head, x, *how)

    @short_traceback
    def predict_on_batch(self, x: Any, *, pad: Pad | None = None) -> Nest:
        """Outputs for one batch of any size, without a bar."""
        batch = as_batch(x, self._runner.backend.feeding)
        return self.predict(batch, verbose=0, pad=pad)

    @short_traceback
    def predict_iter(
        self,
        x: Any,
        batch_size: int | None = None,
        steps: int | None = None,
        *,
        pad: Pad | None = None,
    ) -> Iterator[HostBatch]:
        """Outputs in order, as they arrive; closing the iterator ends the run.

        Args:
            x, batch_size, steps, pad: As in `predict`.

        Returns:
            Iterator over `HostBatch`, a chunk at a time; arrays may be read-only.
        """
        return passed_on(self._runner, x, batch_size, steps, pad)

    @short_traceback
    def predict_batches(
        self, batches: Iterable[Any], *, pad: Pad | None = None
    ) -> Iterator[Nest]:
        """One result per batch, in order, whatever the sizes of the batches.

        Args:
            batches: List or generator of arrays, nests of them, or `(x, y)` tuples as
                in Keras; a generator is read a bounded number of rows ahead.
            pad: As in `predict`.

        Returns:
            Iterator over the outputs of each batch.
        """
        return per_batch(self._runner, batches, pad)

    def __repr__(self) -> str:
        """Models, replicas and options; no device is asked."""
        try:
            about = self._runner.backend.describe()
        except Exception:  # a debugger also shows one that is not made yet
            return object.__repr__(self)
        return f"{type(self).__name__}({about})"
