"""Loops without input or results: what the devices alone can do."""

from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import Nest
from suite.interface import Contender, Setting, num_rows


class StrategyRun(Contender):
    """A compiled `strategy.run` in a loop, over one global batch kept in place.

    The results of the last step are read to the host; likewise for a small call, which
    is one step.
    """

    def __init__(self, setting: Setting):
        self._strategy = strategy = setting.strategy
        self._rows = setting.step_rows * setting.num_replicas
        self._batch = _batch_on_each_replica(setting)
        forward = _forward(setting.mirrored)
        self._step = tf.function(
            lambda batch: strategy.run(forward, args=(batch,)), autograph=False
        )

    def predict(self, x: Nest) -> None:
        """Runs as many whole steps as `x` has rows, rounded up."""
        num_steps = self.rows_run(num_rows(x)) // self._rows
        outputs = None
        for _ in range(num_steps):
            outputs = self._step(self._batch)
        for leaf in tf.nest.flatten(outputs):
            for result in self._strategy.experimental_local_results(leaf):
                result.numpy()

    def rows_run(self, num_rows: int) -> int:
        """Rows of the whole steps that are run."""
        return -(-num_rows // self._rows) * self._rows


class Limit(Contender):
    """Each device calls its own compiled forward pass from threads of its own.

    Each device starts a step when it has finished one, so that a slow device delays no
    other: no engine can do better without larger batches. A GPU has two threads, so
    that its next step is there before the host learns that the last one is done.
    """

    def __init__(self, setting: Setting):
        self._devices = setting.devices
        self._rows = setting.step_rows
        leaves = [
            setting.strategy.experimental_local_results(leaf)
            for leaf in tf.nest.flatten(_batch_on_each_replica(setting))
        ]
        self._batches = list(zip(*leaves, strict=True))
        self._steps = _step_of_each_replica(setting)

    def predict(self, x: Nest) -> None:
        """Runs as many whole steps as `x` has rows, rounded up."""
        num_steps = self.rows_run(num_rows(x)) // self._rows
        todo = iter(range(num_steps))
        num_threads = 2 if "GPU" in self._devices[0] else 1
        replicas = [*range(len(self._devices))] * num_threads
        with ThreadPoolExecutor(len(replicas)) as pool:
            list(pool.map(lambda replica: self._loop(replica, todo), replicas))

    def _loop(self, replica: int, todo: Iterator[int]) -> None:
        step, batch = self._steps[replica], self._batches[replica]
        with tf.device(self._devices[replica]):
            for _ in todo:
                _, mark = step(*batch)
                mark.numpy()

    def rows_run(self, num_rows: int) -> int:
        """Rows of the whole steps that are run."""
        return -(-num_rows // self._rows) * self._rows


def _forward(model: Any) -> Any:
    return lambda batch: model(batch, training=False)


def _batch_on_each_replica(setting: Setting) -> Nest:
    """A nest of per-replica tensors, each on its device."""

    def distribute(array: np.ndarray) -> Any:
        def on_device(context: Any) -> tf.Tensor:
            start = int(context.replica_id_in_sync_group) * setting.step_rows
            with tf.device(setting.devices[int(context.replica_id_in_sync_group)]):
                rows = tf.convert_to_tensor(array[start : start + setting.step_rows])
                return tf.identity(rows)

        return setting.strategy.experimental_distribute_values_from_function(on_device)

    return tf.nest.map_structure(distribute, setting.example)


def _step_of_each_replica(setting: Setting) -> list[Any]:
    """Traced by `strategy.run`, so that each step reads its replica's own variables.

    A step returns its outputs, and one of their values on the host to wait for. A copy
    that is requested after the next step was launched would wait for that step too.
    """
    steps: list[Any] = [None] * setting.num_replicas
    forward = _forward(setting.mirrored)
    specs = [
        tf.TensorSpec([setting.step_rows, *leaf.shape[1:]], leaf.dtype)
        for leaf in tf.nest.flatten(setting.example)
    ]

    def run(*leaves: tf.Tensor) -> tuple[Nest, tf.Tensor]:
        outputs = forward(tf.nest.pack_sequence_as(setting.example, leaves))
        mark = tf.reshape(tf.nest.flatten(outputs)[0], [-1])[:1]
        with tf.device("CPU:0"):
            return outputs, tf.identity(mark)

    def trace_here() -> None:
        context = tf.distribute.get_replica_context()
        replica = int(tf.get_static_value(context.replica_id_in_sync_group))
        step = tf.function(run, autograph=False)
        steps[replica] = step.get_concrete_function(*specs)

    tf.function(
        lambda: setting.strategy.run(trace_here), autograph=False
    ).get_concrete_function()
    return steps
