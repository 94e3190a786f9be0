"""A model that sleeps instead of computing: simulated accelerators.

Guarantees:

* A simulated device runs one batch at a time, whoever calls it, as the stream of a
  GPU would: a batch that is called while another one runs begins when that one ends,
  not when a thread of the host has noticed. Its threads are free while it does.
* The result is the first column of the input, so that order can be checked.
"""

import dataclasses
import threading
import time
from typing import Any

import keras
import numpy as np
import tensorflow as tf

ROW_LENGTH = 20
SLEEP_SECONDS = 0.02


@dataclasses.dataclass(frozen=True)
class SimulatedDevices:
    """Devices that take a fixed time for each batch.

    Args:
        seconds: For each device, the time that a batch takes.
    """

    seconds: tuple[float, ...]

    @property
    def batches_per_second(self) -> float:
        """The sum of the devices' own speeds."""
        return sum(1 / seconds for seconds in self.seconds)


def simulated(num_replicas: int, slow_factor: float) -> SimulatedDevices:
    """Devices of equal speed but for the first, which is `slow_factor` times slower."""
    others = [SLEEP_SECONDS] * (num_replicas - 1)
    return SimulatedDevices((SLEEP_SECONDS * slow_factor, *others))


class Sleep(keras.layers.Layer):
    """Returns the first column after its device has slept.

    Args:
        devices: The simulated devices; the replica's own copy of the variable
            `device_id` says which one it is.
    """

    def __init__(self, devices: SimulatedDevices, **kwargs: Any):
        super().__init__(trainable=False, **kwargs)
        self._devices = devices
        self._clock_lock = threading.Lock()
        self._free_at = [0.0 for _ in devices.seconds]
        self.device_id = self.add_weight(
            shape=(), dtype="int32", initializer="zeros", name="device_id"
        )

    def call(self, inputs: Any) -> Any:
        """Sleeps for one batch of shape `(rows, columns)`; returns `(rows, 1)`."""
        column = inputs[:, :1]
        # Stateless, or the replicas' calls in one graph would wait for each other.
        slept = tf.numpy_function(
            self._sleep, [column, self.device_id], column.dtype, stateful=False
        )
        return tf.ensure_shape(slept, column.shape)

    def _sleep(self, column: np.ndarray, device_id: np.ndarray) -> np.ndarray:
        device = int(device_id)
        with self._clock_lock:
            begin = max(time.perf_counter(), self._free_at[device])
            end = self._free_at[device] = begin + self._devices.seconds[device]
        time.sleep(max(end - time.perf_counter(), 0.0))
        return column


def build(devices: SimulatedDevices, strategy: Any) -> Any:
    """Makes the model under a strategy, each replica on a simulated device."""
    with strategy.scope():
        layer = Sleep(devices)
        model = keras.Sequential([keras.Input((ROW_LENGTH,)), layer])
    copies = strategy.experimental_local_results(layer.device_id.value)
    for index, copy in enumerate(copies):
        copy.assign(index)
    return model


def make_rows(num_rows: int) -> np.ndarray:
    """Rows whose first column is their index; float32 of shape `(num_rows, 20)`."""
    rows = np.zeros((num_rows, ROW_LENGTH), np.float32)
    rows[:, 0] = np.arange(num_rows) % (1 << 24)
    return rows
