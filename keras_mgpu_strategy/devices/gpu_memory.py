"""How much memory a GPU, or each part of a split one, has, by NVIDIA's driver."""

import functools
import subprocess

import tensorflow as tf

from keras_mgpu_strategy.system import environment

# CUDA needs some memory of its own for each process and each logical device.
_USABLE_SHARE = 0.9
_WHOLE = tf.config.LogicalDeviceConfiguration()

_BY_HAND = (
    "Split the GPUs by hand before TensorFlow starts, with "
    "tf.config.set_logical_device_configuration and a memory_limit for each part; "
    "scope(replicas_per_device=k) accepts GPUs that are split into k parts already."
)


def memory_limit(num_parts: int) -> int:
    """Returns the MiB that each of `num_parts` parts of any visible GPU may take."""
    return limit_from_report(_driver_report("free"), num_parts)


@functools.cache
def capacity(device: str) -> int | None:
    """Returns the bytes that TensorFlow may take of a logical GPU; None if unknown."""
    kind, _, index = device.rpartition(":")
    if kind != "GPU":
        return None
    parts = [
        part.memory_limit
        for gpu in tf.config.get_visible_devices("GPU")
        for part in tf.config.get_logical_device_configuration(gpu) or [_WHOLE]
    ]
    limit = parts[int(index)]
    try:
        mebibytes = limit or limit_from_report(_driver_report("total"), num_parts=1)
    except RuntimeError:
        return None
    return int(mebibytes) << 20


def limit_from_report(report: str, num_parts: int) -> int:
    """Returns MiB per part from one line per GPU, in any order: the least counts."""
    try:
        least_free = min(int(line) for line in report.split("\n") if line.strip())
    except ValueError as error:
        raise RuntimeError(
            f"The memory of the GPUs is not known: expected one number per GPU "
            f"from nvidia-smi, got {report!r}. {_BY_HAND}"
        ) from error
    return int(least_free * _USABLE_SHARE) // num_parts


def _driver_report(kind: str) -> str:
    """MiB of each visible GPU, one per line; `kind` is "free" or "total"."""
    command = [
        "nvidia-smi",
        f"--query-gpu=memory.{kind}",
        "--format=csv,noheader,nounits",
    ]
    visible = environment.visible_cuda_devices()
    if visible:
        command.append(f"--id={visible}")
    try:
        return subprocess.run(
            command, capture_output=True, text=True, check=True, timeout=60
        ).stdout
    except (OSError, subprocess.SubprocessError) as error:
        raise RuntimeError(
            f"The memory of the GPUs is not known: nvidia-smi failed ({error}). "
            f"{_BY_HAND}"
        ) from error
