"""The per-replica batch of a run, which shrinks where memory runs out.

Guarantee: a size that failed is not tried again in the run; several threads that
fail at the same size shrink it once.
"""

import contextlib
import threading
from collections.abc import Iterator

from keras_mgpu_strategy.batch_size import ceil_div
from keras_mgpu_strategy.report import BackOff, StageClock


class BatchSize:
    """A per-replica batch that can be halved.

    Args:
        size: What to begin with, in rows.
        clock: Notes each reduction.
        is_fixed: Whether the model takes no other size.
    """

    def __init__(self, size: int, clock: StageClock, *, is_fixed: bool = False):
        self._size = size
        self._clock = clock
        self._is_fixed = is_fixed
        self._most: int | None = None
        self._on_trial = False
        self._lock = threading.Lock()

    @property
    def size(self) -> int:
        """Rows of one call of the model."""
        return self._size

    @property
    def on_trial(self) -> bool:
        """Whether a larger size may follow, so that `most` is worth asking for."""
        return self._on_trial

    @contextlib.contextmanager
    def trial(self) -> Iterator[None]:
        """While a size is tried; by one thread, before there are others."""
        self._on_trial = True
        try:
            yield
        finally:
            self._on_trial = False

    @property
    def most(self) -> int | None:
        """The largest size that memory allows, where that is known."""
        return self._most

    def bound(self, most: int | None) -> None:
        """Notes the largest size that memory allows, if it could be asked for."""
        with self._lock:
            self._most = most

    def change(self, size: int) -> None:
        """Goes on with another size."""
        with self._lock:
            self._size = size

    def shrink(self, failed: int, row: int, error: Exception) -> None:
        """Halves the size, unless that has been done since `failed` was read.

        Args:
            failed: The size that did not fit.
            row: First row of the chunk that failed.
            error: What TensorFlow raised.

        Raises:
            MemoryError: The size cannot be reduced further.
        """
        with self._lock:
            if self._size < failed:
                return
            if failed == 1 or self._is_fixed:
                raise MemoryError(
                    f"The device ran out of memory at row {row} with {failed} rows in "
                    "a batch, and a smaller batch is not possible. Use a device with "
                    "more memory, a lower precision, or fewer replicas per device."
                ) from error
            self._size = ceil_div(failed, 2)
            self._clock.add_back_off(BackOff(row, failed, self._size))
