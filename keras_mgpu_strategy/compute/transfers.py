"""Copies between the host and a device, as parts of graphs.

There TensorFlow waits for a copy alone, without the GIL. Outside, a copy waits for all
work of a GPU, and `tf.convert_to_tensor` holds the GIL (tested with TensorFlow 2.21).
Tensors on a device that shares the host's memory stay.
"""

import ctypes
import threading
from collections.abc import Sequence
from functools import partial
from typing import NamedTuple

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import Nest

_PLAIN = frozenset(
    {tf.bool, tf.bfloat16, tf.float16, tf.float32, tf.float64, tf.int8, tf.int16}
    | {tf.int64, tf.uint8, tf.uint16, tf.uint32, tf.uint64}
    | {tf.complex64, tf.complex128}
)

_MOST_KEPT = 6  # as many chunks as a device has at a time

HOST = "CPU:0"
"""The device whose memory is the host's."""


def has_own_memory(device: str) -> bool:
    """Whether a device, given by its name, cannot use the host's memory."""
    return "CPU" not in device.rpartition("/")[2]


class InPlace:
    """Hands arrays to a device that shares the host's memory."""

    def __init__(self, device: str):
        self._device = device

    def load(self, arrays: Sequence[np.ndarray]) -> Sequence[tf.Tensor]:
        """Makes tensors of flat arrays."""
        with tf.device(self._device):
            return [tf.convert_to_tensor(array) for array in arrays]

    def copy(self, loaded: Sequence[tf.Tensor]) -> Sequence[tf.Tensor]:
        """Returns them as they are."""
        return loaded


class Copier:
    """Copies chunks of flat specs to a device with memory of its own.

    A buffer is written to again only after its last copy has arrived. A graph that
    sends to a GPU makes the buffers, which are thus page-locked: a GPU reads them
    several times faster. Strings, rows of varying shapes and int32 are converted
    instead.
    """

    def __init__(self, device: str, specs: Sequence[tf.TensorSpec]):
        self._device = device
        self._staged = [spec if _can_be_staged(spec) else None for spec in specs]
        self._free: list[_Buffer] = []
        self._lock = threading.Lock()
        count = tf.TensorSpec([], tf.int64)
        self._copy = tf.function(self._sent).get_concrete_function(count, *specs)
        # A graph for each: within one, TensorFlow would merge buffers that are alike.
        self._make = [
            spec and tf.function(partial(self._zeros, spec), input_signature=[count])
            for spec in self._staged
        ]

    def load(self, arrays: Sequence[np.ndarray]) -> "_Buffer":
        """Copies flat arrays to where the device copies them from."""
        num_rows = len(arrays[0])
        buffer = self._taken(num_rows)
        tensors = list(buffer.tensors)
        for index, (view, array) in enumerate(zip(buffer.views, arrays, strict=True)):
            if view is None:
                with tf.device(HOST):
                    tensors[index] = tf.convert_to_tensor(array)
            else:
                np.copyto(view[:num_rows], array)
        return _Buffer(tensors, buffer.views, buffer.room, num_rows)

    def copy(self, loaded: "_Buffer") -> Sequence[tf.Tensor]:
        """Copies them to the device, and waits until they are there."""
        with tf.device(HOST):
            count = tf.constant(loaded.num_rows, tf.int64)
        copied = self._copy(count, *loaded.tensors)
        pairs = zip(loaded.views, copied, strict=True)
        if all(v is None or has_own_memory(leaf.backing_device) for v, leaf in pairs):
            self._keep(loaded)
        return copied

    def _keep(self, used: "_Buffer") -> None:
        pairs = zip(used.tensors, used.views, strict=True)
        tensors = [None if view is None else tensor for tensor, view in pairs]
        with self._lock:
            self._free = [*self._free, used._replace(tensors=tensors)][-_MOST_KEPT:]

    def _sent(self, count: tf.Tensor, *leaves: tf.Tensor) -> list[tf.Tensor]:
        with tf.device(HOST):  # of a buffer, those that were loaded
            leaves = tuple(leaf[:count] for leaf in leaves)
        return to_device(self._device, leaves)

    def _taken(self, num_rows: int) -> "_Buffer":
        with self._lock:
            for index, buffer in enumerate(self._free):
                if buffer.room >= num_rows:
                    return self._free.pop(index)
            del self._free[:1]  # the one that is made takes its place
        return self._made(num_rows)

    def _made(self, room: int) -> "_Buffer":
        with tf.device(HOST):
            count = tf.constant(room, tf.int64)
            tensors = [None if make is None else make(count)[0] for make in self._make]
        views = tuple(None if each is None else _writable(each) for each in tensors)
        return _Buffer(tensors, views, room)

    def _zeros(
        self, spec: tf.TensorSpec, room: tf.Tensor
    ) -> tuple[tf.Tensor, list[tf.Tensor]]:
        with tf.device(HOST):
            zeros = tf.fill([room, *spec.shape[1:]], tf.zeros([], spec.dtype))
        return zeros, to_device(self._device, [zeros])


class _Buffer(NamedTuple):
    """Tensors on the host, and arrays with their memory if it is used again."""

    tensors: Sequence[tf.Tensor | None]
    views: Sequence[np.ndarray | None]
    room: int
    num_rows: int = 0


def _can_be_staged(spec: tf.TensorSpec) -> bool:
    # `num_elements` is None if an axis may vary; of 0 bytes there is no memory.
    return spec.dtype in _PLAIN and bool(spec.shape[1:].num_elements())


def _writable(tensor: tf.Tensor) -> np.ndarray:
    """The memory of a tensor that nothing else uses."""
    array = np.asarray(tensor)
    memory = memoryview((ctypes.c_byte * array.nbytes).from_address(array.ctypes.data))
    return np.frombuffer(memory, np.uint8).view(array.dtype).reshape(array.shape)


def to_device(device: str, leaves: Sequence[tf.Tensor]) -> list[tf.Tensor]:
    """Copies flat tensors to a device, all at the same time."""
    with tf.device(device):
        return [tf.identity(leaf) for leaf in leaves]


def to_host(device: str, outputs: Nest) -> Nest:
    """Copies what was computed on a device to the host."""
    if not has_own_memory(device):
        return outputs
    with tf.device(HOST):
        return tf.nest.map_structure(tf.identity, outputs)
