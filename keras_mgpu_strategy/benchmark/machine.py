"""TensorFlow's devices for one measurement, configured before TensorFlow starts.

A CPU replica has one intra-op thread: otherwise one replica uses all cores. A GPU's
memory is allocated as needed, to leave some for others.
"""

from collections.abc import Iterable
from typing import Any

import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.models import xla
from keras_mgpu_strategy.system.environment import num_cores


def configure(kind: str, num_sharing: int | None = None) -> str:
    """Sets threads and memory; returns "gpu" or "cpu", also for "auto".

    On a CPU, `num_sharing` replicas share all cores; else each has one intra-op thread.
    """
    gpus = tf.config.list_physical_devices("GPU")
    if kind == "cpu" or (kind == "auto" and not gpus):
        tf.config.set_visible_devices([], "GPU")
        threads = max(num_cores() // num_sharing, 1) if num_sharing else 1
        tf.config.threading.set_intra_op_parallelism_threads(threads)
        return "cpu"
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    return "gpu"


def make_strategy(kind: str, num_replicas: int, *, shared: bool = False) -> Any:
    """The strategy over the first GPUs, or parts of the CPU or a `shared` GPU."""
    if kind == "gpu" and not shared:
        with mgpu.scope(list(range(num_replicas))) as strategy:
            return strategy
    with mgpu.scope(f"{kind}:0", replicas_per_device=num_replicas) as strategy:
        return strategy


def avoid_failing_xla(models: Iterable[Any], strategy: Any) -> None:
    """Has models of Keras run plain on GPUs for which XLA would try, and fail."""
    device = strategy.extended.worker_devices[0]
    if "GPU" in device and not xla.works_on(device):
        for model in models:
            model.jit_compile = False


def describe() -> dict[str, Any]:
    """JSON record of the GPUs in use, each name once, and the threads of a CPU op."""
    gpus = tf.config.get_visible_devices("GPU")
    details = map(tf.config.experimental.get_device_details, gpus)
    names = dict.fromkeys(each.get("device_name", "GPU") for each in details)
    threads = tf.config.threading.get_intra_op_parallelism_threads()
    return {"gpu_names": ", ".join(names) or None, "intra_op_threads": threads or None}
