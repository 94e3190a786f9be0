"""How much memory each part of a split GPU may take.

TensorFlow splits a GPU only with a memory limit per part, and has no public call
that tells a GPU's memory before it starts. NVIDIA's driver does.
"""

import subprocess

from keras_mgpu_strategy import environment

# CUDA needs some memory of its own for each process and each logical device.
_USABLE_SHARE = 0.9

_BY_HAND = (
    "Split the GPUs by hand before TensorFlow starts, with "
    "tf.config.set_logical_device_configuration and a memory_limit for each part; "
    "scope(replicas_per_device=k) accepts GPUs that are split into k parts already."
)


def memory_limit(num_parts: int) -> int:
    """Returns the MiB that each of `num_parts` parts of any one GPU may take.

    The least free memory of all visible GPUs counts, so that the limit suits each
    of them in whatever order the driver lists them.

    Raises:
        RuntimeError: The driver does not tell.
    """
    return limit_from_report(_driver_report(), num_parts)


def limit_from_report(report: str, num_parts: int) -> int:
    """Returns the MiB for each part, from one line of free MiB per GPU.

    Raises:
        RuntimeError: The report has a line that is not a number, or no line.
    """
    try:
        least_free = min(int(line) for line in report.split("\n") if line.strip())
    except ValueError as error:
        raise RuntimeError(
            f"The free memory of the GPUs is not known: expected one number per GPU "
            f"from nvidia-smi, got {report!r}. {_BY_HAND}"
        ) from error
    return int(least_free * _USABLE_SHARE) // num_parts


def _driver_report() -> str:
    command = [
        "nvidia-smi",
        "--query-gpu=memory.free",
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
            f"The free memory of the GPUs is not known: nvidia-smi failed ({error}). "
            f"{_BY_HAND}"
        ) from error
