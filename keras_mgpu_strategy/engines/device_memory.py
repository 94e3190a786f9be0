"""How much GPU memory a chunk takes.

Only GPUs are asked. For a CPU, `tf.config.experimental.get_memory_info` raises if
TensorFlow computes without oneDNN and returns zeros if it computes with it, so its
reply says nothing.
"""

from collections.abc import Sequence

import tensorflow as tf

from keras_mgpu_strategy.devices import gpu_memory
from keras_mgpu_strategy.engines.memory_plans import Reading


class Probe:
    """Watches the memory of some devices from its creation, while one chunk runs.

    Args:
        devices: Names of the devices.
    """

    def __init__(self, devices: Sequence[str]):
        names = [device.rpartition("device:")[2] for device in devices]
        self._held = {name: _reset(name) for name in names}

    def reading(self, moved: int) -> Reading | None:
        """What the chunk took on the device with the least room; None if unknown.

        Args:
            moved: Bytes of its inputs and outputs.
        """
        readings = [_reading(name, held, moved) for name, held in self._held.items()]
        known = [reading for reading in readings if reading is not None]
        return min(known, key=_room) if len(known) == len(readings) else None


def _room(reading: Reading) -> float:
    if reading.free is None:
        return 0.0
    return reading.free / max(reading.needed, 1)


def _reading(name: str, held: int | None, moved: int) -> Reading | None:
    if held is None:
        return None
    peak = tf.config.experimental.get_memory_info(name)["peak"]
    capacity = gpu_memory.capacity(name)
    free = None if capacity is None else max(capacity - held, 0)
    return Reading(max(peak - held, 0), free, moved)


def _reset(name: str) -> int | None:
    """Bytes in use when the peak was reset; None if unknown, as for every CPU."""
    if not name.startswith("GPU"):
        return None
    try:
        tf.config.experimental.reset_memory_stats(name)
        return tf.config.experimental.get_memory_info(name)["current"]
    except ValueError:
        return None
