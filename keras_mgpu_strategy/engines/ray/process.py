"""Sets TensorFlow up in a process that Ray has started."""

import contextlib
import os
import sys
from collections.abc import Sequence

import tensorflow as tf


def gpu_ids() -> list[str]:
    """The GPUs that Ray has given this process, by their numbers on the machine."""
    import ray

    ids = ray.get_runtime_context().get_accelerator_ids()
    return [str(number) for number in ids.get("GPU", [])]


def num_cpus() -> int:
    """The CPU cores that Ray has given this process; at least 1."""
    import ray

    assigned = ray.get_runtime_context().get_assigned_resources()
    return max(int(assigned.get("CPU", 1)), 1)


def is_actor() -> bool:
    """Whether this is a Ray process that holds an object of a class."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return ray.get_runtime_context().get_actor_id() is not None


def configure(num_threads: int, gpus: Sequence[str]) -> None:
    """Limits TensorFlow to what Ray has given this process.

    GPUs may be shared, so their memory is taken as needed. Without one, an op runs in
    `num_threads` threads.

    Raises:
        RuntimeError: TensorFlow sees no GPU although Ray has given one.
    """
    found = tf.config.list_physical_devices("GPU")
    if not gpus:
        if found:  # Ray hides no GPUs from a process that asked for none
            tf.config.set_visible_devices([], "GPU")
        # Too late if the process has run TensorFlow for another Ray task.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        return
    if not found:
        raise RuntimeError(
            f"Ray has given process {os.getpid()} on {node()} the GPU "
            f"{', '.join(gpus)}, but TensorFlow sees no GPU there. Install "
            "tensorflow[and-cuda] and NVIDIA's driver on that machine, or start Ray on "
            "it with num_gpus=0."
        )
    for gpu in found:
        tf.config.experimental.set_memory_growth(gpu, True)


def node() -> str:
    """Name of this machine."""
    return os.uname().nodename
