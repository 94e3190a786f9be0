"""How large a batch the memory of a GPU allows, judged by one that fitted.

Only GPUs are asked. For a CPU, `tf.config.experimental.get_memory_info` raises where
TensorFlow computes without oneDNN and returns zeros where it computes with it, so its
reply says nothing. Where no bound is known, a batch that does not fit is halved
(`backing_off`).
"""

import tensorflow as tf

from keras_mgpu_strategy import gpu_memory


class Probe:
    """Watches the memory of one device from its making on, while a batch runs.

    Args:
        device: Name of the device.
    """

    def __init__(self, device: str):
        self._name = device.rpartition("device:")[2]
        self._held = _reset(self._name)

    def largest_batch(self, size: int) -> int | None:
        """The most rows in a batch that would fit; None if unknown.

        Args:
            size: Rows in a batch that has run since.
        """
        if self._held is None:
            return None
        capacity = gpu_memory.capacity(self._name)
        if capacity is None:
            return None
        peak = tf.config.experimental.get_memory_info(self._name)["peak"]
        return rows_that_fit(size, self._held, peak, capacity)


def rows_that_fit(size: int, held: int, peak: int, capacity: int) -> int:
    """The most rows in a batch, if memory grows with them; at least those that fitted.

    Args:
        size: Rows in a batch that fitted.
        held: Bytes in use before it ran.
        peak: Most bytes in use while it ran.
        capacity: Bytes that may be used.
    """
    per_batch = max(peak - held, 1)
    return max(size * (capacity - held) // per_batch, size)


def _reset(device: str) -> int | None:
    """Bytes in use when the peak was reset; None if unknown, as for every CPU."""
    if not device.startswith("GPU"):
        return None
    try:
        tf.config.experimental.reset_memory_stats(device)
        return tf.config.experimental.get_memory_info(device)["current"]
    except ValueError:
        return None
