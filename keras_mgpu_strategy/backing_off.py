"""How many rows a device is given at a time, which shrinks where memory runs out.

An allocation that fails on a GPU has waited ten seconds for memory to come free, so no
size is searched by failing. The first micro-batch of a size runs alone on its GPU. What
it took says how many micro-batches a chunk may hold, and how many chunks the GPU. Where
it does not fit, a small batch is measured, and then comes the largest that its memory
allows. CPUs do not tell what is in use; there the batch is halved.

Guarantees:

* The chunk shrinks first, then the batch. A size that failed is not tried again, and
  several threads that fail at the same size shrink it once.
* What fitted once is remembered in `Limits` and not measured again.
"""

import dataclasses
import threading

import tensorflow as tf

from keras_mgpu_strategy.batch_size import ceil_div
from keras_mgpu_strategy.report import BackOff, StageClock

MOST_HELD = 6
"""Chunks that a device may hold where memory sets no limit."""

_USABLE_SHARE = 0.9
_SHARE_OF_ONE_BATCH = 0.6
_MEASURED_PART = 32
_STEP_WITHOUT_KNOWLEDGE = 8


def is_out_of_memory(error: BaseException) -> bool:
    """Whether an error of TensorFlow says that memory has run out.

    A tensor that could not be copied to a GPU is an internal error for TensorFlow.
    """
    if isinstance(error, tf.errors.ResourceExhaustedError):
        return True
    text = str(error)
    is_of_copy = "Dst tensor is not initialized" in text
    return isinstance(error, tf.errors.InternalError) and (
        is_of_copy or "out of memory" in text.lower()
    )


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one micro-batch took of a device's memory, in bytes.

    Args:
        needed: At its peak, beyond what was held before.
        free: What there was for it; None where nobody tells.
        moved: Of `needed`, its inputs and outputs, which stay for as long as a chunk is
            on the device.
    """

    needed: int
    free: int | None
    moved: int


@dataclasses.dataclass(frozen=True)
class Plan:
    """How chunks are run.

    Args:
        size: Rows of one call of the model.
        chunk_rows: The most rows of a chunk; None where memory sets no limit.
        held: The most chunks on a device; None where memory sets no limit.
        is_measured: Whether the memory that a chunk takes is to be measured.
    """

    size: int
    chunk_rows: int | None = None
    held: int | None = None
    is_measured: bool = False


class Limits:
    """What is known of the memory that batches take, kept from run to run."""

    def __init__(self) -> None:
        self._plans: dict[int, Plan] = {}
        self._most: int | None = None

    def at_most(self, size: int) -> int:
        """The size, or the largest that fits."""
        return size if self._most is None else min(size, self._most)

    def plan(self, size: int) -> Plan | None:
        """How batches of a size were run; None if they were not yet."""
        return self._plans.get(size)

    def learn(self, plan: Plan, *, is_largest: bool) -> None:
        """Remembers what fits."""
        self._plans[plan.size] = plan
        if is_largest:
            self._most = plan.size


def alone(size: int) -> Plan:
    """One micro-batch, with nothing else on the device."""
    return Plan(size, chunk_rows=size, held=1, is_measured=True)


def plan_for(size: int, reading: Reading) -> Plan:
    """As much as memory allows, by what one micro-batch took.

    What computing takes counts twice, since a chunk may be launched before all memory
    of the one before it is free; where there is no room for that, too few chunks are
    held for it.
    """
    if reading.free is None:
        return Plan(size)
    usable = int(_USABLE_SHARE * reading.free)
    moved = max(min(reading.moved, reading.needed), 1)
    computing = reading.needed - moved
    micro_batches = (usable - 2 * computing) // (MOST_HELD * moved)
    if micro_batches >= 1:
        return Plan(size, chunk_rows=micro_batches * size)
    held = max((usable - computing) // max(moved, computing, 1), 1)
    return Plan(size, chunk_rows=size, held=min(held, MOST_HELD))


def largest_batch(size: int, reading: Reading) -> int | None:
    """The most rows in a batch, if memory grows with them; at least those that fitted.

    Some memory is left for the next chunk. None where the devices do not tell.
    """
    if reading.free is None:
        return None
    usable = int(_SHARE_OF_ONE_BATCH * reading.free)
    return max(size * usable // max(reading.needed, 1), size)


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
