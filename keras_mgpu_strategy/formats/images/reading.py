"""Batches of decoded images, read ahead by tf.data on the CPU, in order.

A file that fails leaves zeros in its place. At most two batches are read ahead, or one
if two take more than `MOST_READ_AHEAD` bytes. With threads of its own, it never waits
for a model on the CPU that waits for it.
"""

import atexit
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.images.decoding import Load
from keras_mgpu_strategy.system.environment import num_cores

MOST_READ_AHEAD = 128 * 1024 * 1024


class ImageReader:
    """Reads files in order, in any number of threads; slower once a file has failed."""

    def __init__(self, load: Load, image: tf.TensorSpec) -> None:
        self._image = image
        # Functions keep their graphs, which take longer to build than a small pass.
        self._load = _graph_function(load)
        self._load_or_zeros = _graph_function(_load_or_zeros_fn(load, image))

    def read(
        self, paths: list[bytes], batch_size: int
    ) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yields images of shape `(rows, ...)`, and which of their files were read."""
        num_read = 0
        try:
            for images in self._pipeline(paths, self._load, batch_size):
                rows = np.asarray(images)
                yield rows, np.ones(len(rows), bool)
                num_read += len(rows)
            return
        except tf.errors.OpError:
            rest = paths[num_read:]
        for images, was_read in self._pipeline(rest, self._load_or_zeros, batch_size):
            yield np.asarray(images), np.asarray(was_read)

    def _pipeline(
        self, paths: list[bytes], load: Callable[..., Any], batch_size: int
    ) -> Iterator[Any]:
        options = tf.data.Options()
        # The autotuner's thread sleeps, and ending the iterator waits for it.
        options.autotune.enabled = False
        options.deterministic = True
        options.threading.private_threadpool_size = num_cores()
        num_ahead = num_batches_ahead(self._image, batch_size)
        # Otherwise the images land on the first GPU if that is the default.
        with tf.device("CPU:0"):
            files = tf.data.Dataset.from_tensor_slices(paths)
            images = files.map(load, num_parallel_calls=num_cores(), deterministic=True)
            batches = images.batch(batch_size).prefetch(num_ahead)
            return _until_exit(iter(batches.with_options(options)))


def num_batches_ahead(image: tf.TensorSpec, batch_size: int) -> int:
    """Batches that are kept decoded while the model computes."""
    batch_bytes = batch_size * image.shape.num_elements() * image.dtype.size
    return 2 if 2 * batch_bytes <= MOST_READ_AHEAD else 1


def _until_exit(iterator: Iterator[Any]) -> Iterator[Any]:
    """Releases an iterator at exit: ending it later could wait for Python forever."""
    held = [iterator]
    del iterator
    atexit.register(held.clear)
    try:
        while held:
            try:
                item = next(held[0])
            except StopIteration:
                return
            yield item
    finally:
        held.clear()
        atexit.unregister(held.clear)


def _graph_function(function: Callable[..., Any]) -> Callable[..., Any]:
    path = tf.TensorSpec([], tf.string)
    return tf.function(function, input_signature=[path], autograph=False)


def _load_or_zeros_fn(load: Load, image: tf.TensorSpec) -> Callable[..., Any]:
    """Returns a function from a path to the image or zeros, and whether it was read."""
    options = tf.data.Options()
    # What pays off over a pass costs more than it gains on one element.
    options.autotune.enabled = False
    options.experimental_optimization.apply_default_optimizations = False

    def load_or_zeros(path: tf.Tensor) -> Any:
        # A data set is the only thing in a graph that continues after an error.
        loaded = tf.data.Dataset.from_tensors(path).map(lambda p: (load(p), True))
        zeros = (tf.zeros(image.shape, image.dtype), False)
        failed = tf.data.Dataset.from_tensors(zeros)
        either = loaded.ignore_errors().concatenate(failed).take(1)
        return either.with_options(options).get_single_element()

    return load_or_zeros
