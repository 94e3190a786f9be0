"""TensorFlow's devices for one job, configured before TensorFlow starts.

Guarantees:

* A CPU replica has one intra-op thread, as a replica on a GPU has one GPU: otherwise
  one replica uses all cores and scaling is meaningless. Replicas that share one CPU get
  equal parts of all its cores.
* A GPU's memory is allocated as needed, so that some is left for other processes.
"""

from typing import Any

import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.system.environment import num_cores


def configure(kind: str, cpu_threads: int = 1) -> str:
    """Sets threads and memory; returns the kind of device to use, gpu or cpu.

    Args:
        kind: `"auto"` takes GPUs if there are any.
        cpu_threads: Intra-op threads if the kind is cpu.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "cpu" or (kind == "auto" and not gpus):
        tf.config.set_visible_devices([], "GPU")
        tf.config.threading.set_intra_op_parallelism_threads(cpu_threads)
        return "cpu"
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return "gpu"


def gpu_names() -> str | None:
    """The names of the GPUs in use, each once; None if there are none."""
    details = map(
        tf.config.experimental.get_device_details, tf.config.get_visible_devices("GPU")
    )
    names = dict.fromkeys(each.get("device_name", "GPU") for each in details)
    return ", ".join(names) or None


def make_strategy(kind: str, num_replicas: int) -> Any:
    """The strategy over the first GPUs, or over virtual CPU devices.

    Raises:
        ValueError: If there are fewer GPUs; names the available ones.
    """
    if kind == "gpu":
        with mgpu.scope(list(range(num_replicas))) as strategy:
            return strategy
    with mgpu.scope("cpu", replicas_per_device=num_replicas) as strategy:
        return strategy


def share_device(kind: str, num_replicas: int) -> Any:
    """The strategy over equal parts of the first GPU, or of the CPU.

    Raises:
        ValueError: If there is no GPU.
        RuntimeError: If the memory of the GPU is unknown.
    """
    with mgpu.scope(f"{kind}:0", replicas_per_device=num_replicas) as strategy:
        return strategy


def share_of_cores(num_replicas: int) -> int:
    """Cores for each of the replicas that share the CPU; at least one."""
    return max(num_cores() // num_replicas, 1)


def intra_op_threads() -> int | None:
    """Threads of an op on the CPU; None if TensorFlow chooses."""
    return tf.config.threading.get_intra_op_parallelism_threads() or None
