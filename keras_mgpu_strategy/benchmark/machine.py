"""TensorFlow's devices for one job, configured before TensorFlow starts.

Guarantees:

* A CPU replica has one intra-op thread, as a replica on a GPU has one GPU:
  otherwise one replica uses all cores and scaling says nothing.
* A GPU's memory is taken as it is needed, so that other processes find some.
"""

from typing import Any

import tensorflow as tf

import keras_mgpu_strategy as mgpu

KINDS = ("auto", "gpu", "cpu")


def configure(kind: str) -> str:
    """Sets threads and memory; returns the kind of device to use, gpu or cpu.

    Args:
        kind: `"auto"` takes GPUs where there are any.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "cpu" or (kind == "auto" and not gpus):
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(1)
        return "cpu"
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return "gpu"


def add_threads(num_threads: int) -> None:
    """Gives TensorFlow a number of threads for ops that wait, as simulated ones do."""
    tf.config.threading.set_inter_op_parallelism_threads(num_threads)


def make_strategy(kind: str, num_replicas: int) -> Any:
    """The strategy over the first GPUs, or over virtual CPU devices.

    Raises:
        ValueError: If there are fewer GPUs; names those that there are.
    """
    if kind == "gpu":
        with mgpu.scope(list(range(num_replicas))) as strategy:
            return strategy
    with mgpu.scope("cpu", replicas_per_device=num_replicas) as strategy:
        return strategy
