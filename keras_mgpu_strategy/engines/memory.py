"""How chunks are run, given how much of a device's memory they take.

Only GPUs are asked. For a CPU, `tf.config.experimental.get_memory_info` raises if
TensorFlow computes without oneDNN and returns zeros if it computes with it.
"""

import dataclasses
from collections.abc import Sequence

import tensorflow as tf

from keras_mgpu_strategy.devices import gpu_memory

MOST_HELD = 6
"""Chunks that a device may hold where memory sets no limit."""

_USABLE_SHARE = 0.9
_SHARE_OF_ONE_BATCH = 0.6


def is_out_of_memory(error: BaseException) -> bool:
    """Whether a TensorFlow error says that memory has run out.

    TensorFlow reports a tensor that could not be copied to a GPU as an internal error.
    """
    if isinstance(error, tf.errors.InternalError):
        text = str(error).lower()
        return "dst tensor is not initialized" in text or "out of memory" in text
    return isinstance(error, tf.errors.ResourceExhaustedError)


@dataclasses.dataclass(frozen=True)
class Reading:
    """What one micro-batch took of a device's memory, in bytes.

    Args:
        needed: At its peak, beyond what was held before.
        free: What was free for it; None if unknown.
        moved: The part of `needed` for its inputs and outputs, which stay for as long
            as a chunk is on the device.
    """

    needed: int
    free: int | None
    moved: int


class Probe:
    """Watches the memory of some devices from its creation, while one chunk runs."""

    def __init__(self, devices: Sequence[str]):
        names = [device.rpartition("device:")[2] for device in devices]
        self._held = {name: _reset(name) for name in names}

    def reading(self, moved: int) -> Reading | None:
        """What the chunk took on the device with the least room; None if unknown."""
        readings = []
        for name, held in self._held.items():
            if held is None:
                return None
            peak = tf.config.experimental.get_memory_info(name)["peak"]
            capacity = gpu_memory.capacity(name)
            free = None if capacity is None else max(capacity - held, 0)
            readings.append(Reading(max(peak - held, 0), free, moved))
        return min(readings, key=_room)


def _room(reading: Reading) -> float:
    return (reading.free or 0) / max(reading.needed, 1)


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
    """How chunks are run: the most rows of one, and the most that a device holds.

    None if memory sets no limit; `size` is that of the batch.
    """

    size: int
    chunk_rows: int | None = None
    held: int | None = None
    is_measured: bool = False


def alone(size: int) -> Plan:
    """One micro-batch, with nothing else on the device."""
    return Plan(size, chunk_rows=size, held=1, is_measured=True)


def plan_for(size: int, reading: Reading) -> Plan:
    """As much as memory allows, given what one micro-batch took.

    The memory for computing counts twice, since a chunk may be launched before all
    memory of the one before it is free; if there is no room for two, one is held.
    """
    if reading.free is None:
        return Plan(size)
    moved = max(min(reading.moved, reading.needed), 1)
    usable = int(_USABLE_SHARE * reading.free) - 2 * (reading.needed - moved)
    micro_batches = usable // (MOST_HELD * moved)
    if micro_batches >= 1:
        return Plan(size, chunk_rows=micro_batches * size)
    return Plan(size, chunk_rows=size, held=max(usable // moved, 1))


def largest_batch(size: int, reading: Reading) -> int | None:
    """The most rows in a batch, if memory grows with them; at least those that fitted.

    Some memory is left for the next chunk. None if the devices do not report it.
    """
    if reading.free is None:
        return None
    usable = int(_SHARE_OF_ONE_BATCH * reading.free)
    return max(size * usable // max(reading.needed, 1), size)


class Limits:
    """How batches of each size were run, and the largest that fits, in all runs."""

    def __init__(self) -> None:
        self.plans: dict[int, Plan] = {}
        self._most: int | None = None

    def at_most(self, size: int) -> int:
        """The size, or the largest that fits."""
        return size if self._most is None else min(size, self._most)

    def learn(self, plan: Plan, *, is_largest: bool) -> None:
        """Remembers what fits."""
        self.plans[plan.size] = plan
        if is_largest:
            self._most = plan.size
