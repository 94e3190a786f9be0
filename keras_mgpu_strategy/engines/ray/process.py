"""Sets TensorFlow up in a process that Ray has started."""

import contextlib
import importlib
import os
import sys

import tensorflow as tf


def is_actor() -> bool:
    """Whether this is a Ray process that holds an object of a class."""
    ray = sys.modules.get("ray")
    if ray is None or not ray.is_initialized():
        return False
    return ray.get_runtime_context().get_actor_id() is not None


def configure(num_threads: int | None = None) -> str:
    """Limits TensorFlow to what Ray has given this process; returns its device."""
    context = importlib.import_module("ray").get_runtime_context()
    gpus = [str(number) for number in context.get_accelerator_ids().get("GPU", [])]
    found = tf.config.list_physical_devices("GPU")
    if not gpus:
        if found:  # Ray hides no GPUs from a process that asked for none
            tf.config.set_visible_devices([], "GPU")
        cores = context.get_assigned_resources().get("CPU", 1)
        num_threads = num_threads or max(int(cores), 1)
        # Too late if the process has run TensorFlow for another Ray task.
        with contextlib.suppress(RuntimeError):
            tf.config.threading.set_intra_op_parallelism_threads(num_threads)
        return "CPU:0"
    if not found:
        raise RuntimeError(
            f"Ray has given process {os.getpid()} on {os.uname().nodename} the GPU "
            f"{', '.join(gpus)}, but TensorFlow sees no GPU there. Install "
            "tensorflow[and-cuda] and NVIDIA's driver on that machine, or start Ray on "
            "it with num_gpus=0."
        )
    for gpu in found:
        tf.config.experimental.set_memory_growth(gpu, True)
    return f"GPU:{gpus[0]}"
