"""How many rows a device is given at a time, which shrinks where memory runs out.

An allocation that fails on a GPU has waited ten seconds for memory to come free, so no
size is searched by failing. The first micro-batch of a size runs alone on its GPU. What
it took says how many micro-batches a chunk may hold, and how many chunks the GPU. Where
it does not fit, a small batch is measured, and then comes the largest that its memory
allows. CPUs do not tell what is in use; there the batch is halved.

Guarantees:

* The chunk shrinks first, then the batch. A size that failed is not tried again, and
  several threads that fail at the same size shrink it once.
"""

import threading

from keras_mgpu_strategy.engines.memory_plans import (
    Limits,
    Plan,
    Reading,
    alone,
    largest_batch,
    plan_for,
)
from keras_mgpu_strategy.report import BackOff, StageClock
from keras_mgpu_strategy.system.arithmetic import ceil_div

_MEASURED_PART = 32
_STEP_WITHOUT_KNOWLEDGE = 8


class BatchSize:
    """A per-replica batch, with how it is run; shrinks where memory runs out.

    Args:
        size: What to begin with, in rows.
        clock: Notes each reduction of the batch.
        limits: What is known from other runs.
        is_fixed: Whether the model takes no other size.
        is_measured: Whether the devices tell how much of their memory is in use.
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
        self._failed: tuple[int, int] | None = None  # a size, and the row where
        self._fits: Plan | None = None
        self._failed_chunks = 0
        self._most: int | None = None
        self._lock = threading.Lock()
        self._plan = self._begin(self._limits.at_most(size))

    @property
    def plan(self) -> Plan:
        """How to run the next chunk."""
        return self._plan

    @property
    def size(self) -> int:
        """Rows of one call of the model."""
        return self._plan.size

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
            self._plan = self._begin(size)

    def learn(self, plan: Plan, reading: Reading | None) -> None:
        """Goes on by what a chunk took that ran alone.

        Args:
            plan: How it was run.
            reading: What it took; None where the devices do not tell.
        """
        with self._lock:
            if plan is not self._plan:
                return
            reading = reading or Reading(0, None, 0)
            fits = plan_for(plan.size, reading)
            if self._failed_chunks:  # more was needed than such a reading says
                held = 2 if self._failed_chunks == 1 else 1
                fits = Plan(plan.size, chunk_rows=plan.size, held=held)
            self._most = largest_batch(plan.size, reading)
            if self._failed is not None:
                self._jump(fits, self._failed)
                return
            self._plan = fits
            self._limits.learn(fits, is_largest=self._fits is not None)

    def _jump(self, fits: Plan, failed: tuple[int, int]) -> None:
        """From a small batch that fitted to the largest that should."""
        size, row = failed
        guess = self._most or _STEP_WITHOUT_KNOWLEDGE * fits.size
        best = max(min(guess, size // 2), fits.size)
        self._failed, self._fits = None, fits
        self._clock.add_back_off(BackOff(row, size, best))
        self._plan = alone(best) if best > fits.size else fits
        if best == fits.size:
            self._limits.learn(fits, is_largest=True)

    def shrink(self, plan: Plan, num_rows: int, row: int, error: Exception) -> None:
        """Goes on with less, unless that has been done since `plan` was read.

        Args:
            plan: What did not fit.
            num_rows: Rows that the device was given.
            row: The first of them.
            error: What TensorFlow raised.

        Raises:
            MemoryError: Less is not possible.
        """
        with self._lock:
            if plan is not self._plan:
                return
            if num_rows > plan.size or (self._is_measured and plan.held != 1):
                self._failed_chunks += 1
                self._plan = self._one_micro_batch(plan.size)
                return
            if plan.size == 1 or self._is_fixed:
                raise MemoryError(
                    f"The device ran out of memory at row {row} with {plan.size} rows "
                    "in a batch, and a smaller batch is not possible. Use a device "
                    "with more memory, a lower precision, or fewer replicas per device."
                ) from error
            self._plan = self._smaller_batch(plan.size, row)

    def _begin(self, size: int) -> Plan:
        return self._limits.plan(size) or self._one_micro_batch(size, Plan(size))

    def _one_micro_batch(self, size: int, otherwise: Plan | None = None) -> Plan:
        if self._is_measured:
            return alone(size)
        return otherwise or Plan(size, chunk_rows=size)

    def _smaller_batch(self, size: int, row: int) -> Plan:
        if self._fits is not None:  # memory does not grow as it should
            fits = self._fits
            self._clock.add_back_off(BackOff(row, size, fits.size))
            self._limits.learn(fits, is_largest=True)
            return fits
        if not self._is_measured:
            half = ceil_div(size, 2)
            self._clock.add_back_off(BackOff(row, size, half))
            self._limits.learn(Plan(half), is_largest=True)
            return Plan(half)
        first, _ = self._failed or (size, row)
        self._failed = (first, row)
        return alone(max(size // _MEASURED_PART, 1))
