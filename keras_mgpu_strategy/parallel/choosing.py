"""Which devices the towers of a parallel model run on."""

from collections.abc import Sequence

from keras_mgpu_strategy.devices.names import (
    DeviceRequest,
    Devices,
    list_logical,
    parse_devices,
    select_devices,
)
from keras_mgpu_strategy.system.integers import as_int, count


def choose_devices(
    gpu_count: int | None = None,
    gpus: int | Sequence[int] | None = None,
    devices: Devices = None,
) -> tuple[str, ...]:
    """Names of the devices that the arguments of `make_parallel` select."""
    arguments = {"gpu_count": gpu_count, "gpus": gpus, "devices": devices}
    given = {name: value for name, value in arguments.items() if value is not None}
    if len(given) > 1:
        values = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(
            f"make_parallel received {values}. Expected one of these, or none for "
            "every GPU."
        )
    if devices is not None:  # arguments are checked before TensorFlow starts
        return select_devices(parse_devices(devices), list_logical())
    ids: list[int] = []
    if isinstance(gpus, Sequence) and not isinstance(gpus, str):
        if not gpus:
            raise ValueError(f"gpus={gpus!r} names no device. Expected ids of GPUs.")
        expected = "Expected a number of GPUs, or a list of ids like [0, 1]."
        ids = [as_int(i, f"gpus holds {i!r}", expected, least=0) for i in gpus]
    counts = {} if ids else {name: count(name, value) for name, value in given.items()}
    existing = list_logical()
    kind = "GPU" if any(name.startswith("GPU:") for name in existing) else "CPU"
    if ids:
        return select_devices(tuple(DeviceRequest(kind, i) for i in ids), existing)
    candidates = tuple(name for name in existing if name.startswith(f"{kind}:"))
    for name, wanted in counts.items():
        return _first(name, wanted, candidates)
    return candidates


def _first(name: str, wanted: int, candidates: tuple[str, ...]) -> tuple[str, ...]:
    if wanted <= len(candidates):
        return candidates[:wanted]
    remedy = f"Expected at most {len(candidates)}."
    if candidates[0].startswith("CPU"):
        remedy = (
            "TensorFlow sees no GPU, so CPU devices stand in. To try more of them, "
            "split the CPU before anything else uses TensorFlow: "
            'mgpu.scope("cpu:0", replicas_per_device=4).'
        )
    raise ValueError(
        f"{name}={wanted}, but this machine has only the devices "
        f"{', '.join(candidates)}. {remedy}"
    )
