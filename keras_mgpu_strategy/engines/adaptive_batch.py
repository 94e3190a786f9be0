"""How many rows a device is given at a time; shrinks if memory runs out.

A failed allocation on a GPU waits ten seconds for memory to come free, so memory is
measured: docs/design.md says how. CPUs do not report the memory in use; there the batch
is halved. The chunk shrinks first, then the batch. A size that failed is not tried
again, and several threads that fail at the same size shrink it once.
"""

import threading

from keras_mgpu_strategy.engines.memory import (
    Limits,
    Plan,
    Reading,
    alone,
    largest_batch,
    plan_for,
)
from keras_mgpu_strategy.report import BackOff, StageClock
from keras_mgpu_strategy.system.integers import ceil_div

_MEASURED_PART = 32
_STEP_WITHOUT_KNOWLEDGE = 8


class BatchSize:
    """A per-replica batch of a run; the arguments are those of `Context`.

    Attributes:
        plan: How to run the next chunk.
        most: The largest size that memory allows; None if unknown.
    """

    def __init__(
        self,
        size: int,
        clock: StageClock,
        limits: Limits | None = None,
        *,
        is_fixed: bool = False,
        is_measured: bool = False,
    ):
        self._clock = clock
        self._limits = limits or Limits()
        self._is_fixed = is_fixed
        self._is_measured = is_measured
        self._failed: tuple[int, int] | None = None  # a size, and the row at fault
        self._fits: Plan | None = None
        self._failed_chunks = 0
        self._lock = threading.Lock()
        self.most: int | None = None
        self.change(self._limits.at_most(size))

    @property
    def size(self) -> int:
        """Rows of one call of the model."""
        return self.plan.size

    def change(self, size: int) -> None:
        """Continues with another size."""
        new = alone(size) if self._is_measured else Plan(size)
        with self._lock:
            self.plan = self._limits.plans.get(size, new)

    def learn(self, plan: Plan, reading: Reading | None) -> None:
        """Plans the next chunks from what one took that ran alone, if that is known."""
        with self._lock:
            if plan is not self.plan:
                return
            reading = reading or Reading(0, None, 0)
            fits = plan_for(plan.size, reading)
            if self._failed_chunks:  # more was needed than such a reading says
                held = 2 if self._failed_chunks == 1 else 1
                fits = Plan(plan.size, chunk_rows=plan.size, held=held)
            self.most = largest_batch(plan.size, reading)
            if self._failed is not None:
                self._jump(fits, *self._failed)
                return
            self.plan = fits
            self._limits.learn(fits, is_largest=self._fits is not None)

    def _jump(self, fits: Plan, size: int, row: int) -> None:
        """Goes from a small batch that fitted to the largest that should."""
        guess = self.most or _STEP_WITHOUT_KNOWLEDGE * fits.size
        best = max(min(guess, size // 2), fits.size)
        self._failed, self._fits = None, fits
        if best == fits.size:
            self._settle(fits, size, row)
            return
        self._clock.add_back_off(BackOff(row, size, best))
        self.plan = alone(best)

    def _settle(self, fits: Plan, failed: int, row: int) -> None:
        self._clock.add_back_off(BackOff(row, failed, fits.size))
        self._limits.learn(fits, is_largest=True)
        self.plan = fits

    def shrink(self, plan: Plan, num_rows: int, row: int, error: Exception) -> None:
        """Continues with less, unless that has been done since `plan` was read.

        A device was given `num_rows` rows, the first of which has the index `row`.

        Raises:
            MemoryError: It cannot shrink further.
        """
        with self._lock:
            if plan is not self.plan:
                return
            size = plan.size
            if num_rows > size or (self._is_measured and plan.held != 1):
                self._failed_chunks += 1
                one = Plan(size, chunk_rows=size)
                self.plan = alone(size) if self._is_measured else one
            elif size == 1 or self._is_fixed:
                raise MemoryError(
                    f"The device ran out of memory at row {row} with {size} rows "
                    "in a batch, and a smaller batch is not possible. Use a device "
                    "with more memory, a lower precision, or fewer replicas per device."
                ) from error
            elif self._fits is not None and self._fits.size < size:
                # Memory grew more than expected.
                self._settle(self._fits, size, row)
            elif not self._is_measured:
                self._settle(Plan(ceil_div(size, 2)), size, row)
            else:
                first, _ = self._failed or (size, row)
                self._failed = (first, row)
                self.plan = alone(max(size // _MEASURED_PART, 1))
