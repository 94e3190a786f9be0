"""How many rows a device is given at a time; shrinks if memory runs out.

A failed allocation on a GPU waits ten seconds, so memory is measured (how:
docs/design.md); on CPUs the batch is halved. The chunk shrinks before the batch. No
failed size is tried again, and threads that fail at one size shrink it once.
"""

import dataclasses
import math
import threading
from collections.abc import Sequence

import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import StepKind
from keras_mgpu_strategy.devices import gpu_memory
from keras_mgpu_strategy.devices.names import short_name
from keras_mgpu_strategy.report import BackOff, StageClock
from keras_mgpu_strategy.system.integers import ceil_div

MOST_HELD = 6
"""Chunks that a device may hold where memory sets no limit."""
_USABLE_SHARE = 0.9
_SHARE_OF_ONE_BATCH = 0.6
_MEASURED_PART = 32
_STEP_WITHOUT_KNOWLEDGE = 8


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a TensorFlow error says that memory has run out."""
    if isinstance(error, tf.errors.InternalError):  # as for a copy that found no room
        text = str(error).lower()
        return "dst tensor is not initialized" in text or "out of memory" in text
    return isinstance(error, tf.errors.ResourceExhaustedError)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one micro-batch took of a device's memory, in bytes."""

    needed: int  # at its peak, beyond what was held before
    free: int | None  # for it; None if unknown
    moved: int  # of `needed`: inputs and outputs, there as long as the chunk


class Probe:
    """Watches the memory of some devices from its creation, while one chunk runs."""

    def __init__(self, devices: Sequence[str]):
        self._held = {name: _reset(name) for name in map(short_name, devices)}

    def reading(self, moved: int) -> Reading:
        """What the chunk took on the device with the least room."""
        readings = []
        for name, held in self._held.items():
            if held is None:
                return Reading(0, None, 0)
            peak = tf.config.experimental.get_memory_info(name)["peak"]
            capacity = gpu_memory.capacity(name)
            free = None if capacity is None else max(capacity - held, 0)
            readings.append(Reading(max(peak - held, 0), free, moved))
        return min(readings, key=lambda r: (r.free or 0) / max(r.needed, 1))


def _reset(name: str) -> int | None:
    """Bytes in use when the peak was reset; None if unknown, as for every CPU."""
    if not name.startswith("GPU"):
        return None
    try:
        tf.config.experimental.reset_memory_stats(name)
        return tf.config.experimental.get_memory_info(name)["current"]
    except ValueError:
        return None


@dataclasses.dataclass(frozen=True)
class Plan:
    """How chunks are run, by a `step` of `size` rows; None if memory sets no limit."""

    size: int
    chunk_rows: int | None = None  # the most of one chunk
    held: int | None = None  # the most on a device
    is_measured: bool = False
    step: StepKind = "plain"


def alone(size: int, step: StepKind = "plain") -> Plan:
    """One micro-batch, with nothing else on the device."""
    return Plan(size, chunk_rows=size, held=1, is_measured=True, step=step)


def plan_for(size: int, reading: Reading, step: StepKind = "plain") -> Plan:
    """As much as memory allows, counting computing twice: chunks may overlap."""
    if reading.free is None:
        return Plan(size, step=step)
    moved = max(min(reading.moved, reading.needed), 1)
    usable = int(_USABLE_SHARE * reading.free) - 2 * (reading.needed - moved)
    micro_batches = usable // (MOST_HELD * moved)
    if micro_batches >= 1:
        return Plan(size, chunk_rows=micro_batches * size, step=step)
    held = max(usable // moved, 1)
    return Plan(size, chunk_rows=size, held=held, step=step)


def largest_batch(size: int, reading: Reading) -> int | None:
    """The most rows that should fit, at least those that did; None if unknown."""
    if reading.free is None:
        return None
    usable = int(_SHARE_OF_ONE_BATCH * reading.free)
    return max(size * usable // max(reading.needed, 1), size)


@dataclasses.dataclass
class Limits:
    """How batches of each size were run, and the largest that fits, in all runs."""

    plans: dict[tuple[int, StepKind], Plan] = dataclasses.field(default_factory=dict)
    most: float = math.inf

    def at_most(self, size: int) -> int:
        """The size, or the largest that fits."""
        return int(min(size, self.most))


class BatchSize:
    """A per-replica batch of a run and its step; `plan` is for the next chunk.

    `most` limits its size.
    """

    def __init__(
        self,
        size: int,
        clock: StageClock,
        limits: Limits | None = None,
        step: StepKind = "plain",
        *,
        is_fixed: bool = False,
        is_measured: bool = False,
        most: int | None = None,
    ):
        self._clock = clock
        self._limits = limits or Limits()
        self._is_fixed = is_fixed
        self._is_measured = is_measured
        self._failed: tuple[int, int] | None = None  # a size, and the row at fault
        self._fits: Plan | None = None
        self._failed_chunks = 0
        self._lock = threading.Lock()
        self.most = most
        self.change(self._limits.at_most(size), step)

    @property
    def size(self) -> int:
        """Rows of one call of the model."""
        return self.plan.size

    @property
    def step(self) -> StepKind:
        """How the model is compiled."""
        return self.plan.step

    def change(self, size: int, step: StepKind | None = None) -> None:
        """Continues with another size, and with another kind of step if given."""
        step = step or self.step
        new = alone(size, step) if self._is_measured else Plan(size, step=step)
        with self._lock:
            self.plan = self._limits.plans.get((size, step), new)

    def learn(self, plan: Plan, reading: Reading) -> None:
        """Plans the next chunks from what one took that ran alone."""
        with self._lock:
            if plan is not self.plan:
                return
            fits = plan_for(plan.size, reading, plan.step)
            if self._failed_chunks:  # more was needed than such a reading says
                held = 2 if self._failed_chunks == 1 else 1
                fits = dataclasses.replace(
                    plan, chunk_rows=plan.size, held=held, is_measured=False
                )
            self.most = largest_batch(plan.size, reading)
            if self._failed is None:
                self._keep(fits, is_largest=self._fits is not None)
            else:
                self._jump(fits, *self._failed)

    def _jump(self, fits: Plan, size: int, row: int) -> None:
        """Goes from a small batch that fitted to the largest that should."""
        guess = self.most or _STEP_WITHOUT_KNOWLEDGE * fits.size
        best = max(min(guess, size // 2), fits.size)
        self._failed, self._fits = None, fits
        if best == fits.size:
            self._settle(fits, size, row)
            return
        self._clock.add_back_off(BackOff(row, size, best))
        self.plan = alone(best, fits.step)

    def _settle(self, fits: Plan, failed: int, row: int) -> None:
        self._clock.add_back_off(BackOff(row, failed, fits.size))
        self._keep(fits, is_largest=True)

    def _keep(self, fits: Plan, *, is_largest: bool) -> None:
        self.plan = self._limits.plans[fits.size, fits.step] = fits
        if is_largest:
            self._limits.most = fits.size

    def shrink(self, plan: Plan, num_rows: int, row: int, error: Exception) -> None:
        """Continues with less after a failure at `row`, unless others have."""
        with self._lock:
            if plan is not self.plan:
                return
            size = plan.size
            if num_rows > size or (self._is_measured and plan.held != 1):
                self._failed_chunks += 1
                one = Plan(size, chunk_rows=size, step=plan.step)
                self.plan = alone(size, plan.step) if self._is_measured else one
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
                self._settle(Plan(ceil_div(size, 2), step=plan.step), size, row)
            else:
                first, _ = self._failed or (size, row)
                self._failed = (first, row)
                self.plan = alone(max(size // _MEASURED_PART, 1), plan.step)
