"""`make_parallel` as it was written for multi-GPU prediction in 2016.

The batch is sliced over towers in one graph, each tower runs the model on its device,
and the CPU joins the outputs. Every tower gets `batch // towers` rows, so the rest of a
batch is silently dropped.
"""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import Nest
from suite.interface import Contender, Setting


def kept_rows(num_rows: int, batch_size: int, num_towers: int) -> np.ndarray:
    """Indices of the rows that are not dropped."""
    starts = range(0, num_rows, batch_size)
    sizes = [min(batch_size, num_rows - start) for start in starts]
    parts = [
        np.arange(start, start + size // num_towers * num_towers)
        for start, size in zip(starts, sizes, strict=True)
    ]
    return np.concatenate(parts) if parts else np.arange(0)


class TowerModel(keras.Model):
    """A model whose batches are sliced over devices.

    Args:
        model: Runs on each device, with one set of variables.
        devices: Where the towers run.
    """

    def __init__(self, model: Any, devices: tuple[str, ...]):
        super().__init__()
        self._model = model
        self._devices = devices

    def call(self, inputs: Nest, training: bool = False) -> Nest:
        """Runs a batch; returns `rows // towers * towers` rows."""
        results = [
            self._run_tower(index, inputs, training)
            for index in range(len(self._devices))
        ]
        with tf.device("CPU:0"):
            return tf.nest.map_structure(lambda *rows: tf.concat(rows, 0), *results)

    def _run_tower(self, index: int, inputs: Nest, training: bool) -> Nest:
        def part(leaf: tf.Tensor) -> tf.Tensor:
            size = tf.shape(leaf)[0] // len(self._devices)
            return leaf[index * size : (index + 1) * size]

        with tf.device(self._devices[index]), tf.name_scope(f"tower_{index}"):
            return self._model(tf.nest.map_structure(part, inputs), training=training)


class MakeParallel(Contender):
    """Keras `predict` of a `TowerModel`."""

    def __init__(self, setting: Setting):
        self._model: Any = TowerModel(setting.plain, setting.devices)
        self._batch_size = setting.global_batch or 32
        self._num_towers = setting.num_replicas

    def predict(self, x: Nest) -> Nest:
        """Runs all rows."""
        return self._model.predict(x, batch_size=self._batch_size, verbose=0)

    def kept(self, num_rows: int) -> np.ndarray:
        """Indices of the rows whose results are returned, in order."""
        return kept_rows(num_rows, self._batch_size, self._num_towers)
