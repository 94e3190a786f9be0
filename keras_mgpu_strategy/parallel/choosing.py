"""Which devices the towers of a parallel model run on.

Guarantees:

* As many towers as requested, each on a device of its own, or an error that lists
  the devices there are.
* CPU devices stand in for GPUs only on a machine where TensorFlow sees no GPU.
"""

from collections.abc import Callable, Sequence
from typing import Any

from keras_mgpu_strategy.devices.names import (
    DeviceRequest,
    Devices,
    list_logical,
    parse_devices,
    select_devices,
)
from keras_mgpu_strategy.system.arguments import count, whole_number

_NUMBER_OR_IDS = "Expected a number of GPUs, or a list of ids like [0, 1]."


def choose_devices(
    gpu_count: int | None = None,
    gpus: int | Sequence[int] | None = None,
    devices: Devices = None,
) -> tuple[str, ...]:
    """Names of the devices that the arguments of `make_parallel` select.

    Args:
        gpu_count, gpus, devices: As in `make_parallel`.

    Raises:
        TypeError: An argument has a wrong type.
        ValueError: More than one argument is given, or a device does not exist or is
            requested twice.
    """
    arguments = {"gpu_count": gpu_count, "gpus": gpus, "devices": devices}
    given = {name: value for name, value in arguments.items() if value is not None}
    if len(given) > 1:
        values = ", ".join(f"{name}={value!r}" for name, value in given.items())
        raise ValueError(
            f"make_parallel received {values}. Expected one of these, or none for "
            "every GPU."
        )
    if not given:
        return _gpus_or_stand_ins()
    ((name, value),) = given.items()
    return _CHOICES[name](name, value)


def _gpus_or_stand_ins() -> tuple[str, ...]:
    """Every GPU; if TensorFlow sees none, every logical CPU device."""
    existing = list_logical()
    kind = _kind(existing)
    return tuple(name for name in existing if name.startswith(f"{kind}:"))


def _kind(existing: Sequence[str]) -> str:
    return "GPU" if any(name.startswith("GPU:") for name in existing) else "CPU"


def _first(name: str, value: Any) -> tuple[str, ...]:
    wanted = count(name, value)
    existing = _gpus_or_stand_ins()
    if wanted > len(existing):
        raise ValueError(
            f"{name}={wanted}, but the devices there are on this machine are: "
            f"{', '.join(existing)}. {_advice(existing)}"
        )
    return existing[:wanted]


def _advice(existing: Sequence[str]) -> str:
    if _kind(existing) == "GPU":
        return f"Expected at most {len(existing)}."
    return (
        "TensorFlow sees no GPU, so CPU devices stand in. To try more of them, split "
        "the CPU before anything else uses TensorFlow: "
        'mgpu.scope("cpu:0", replicas_per_device=4).'
    )


def _number_or_ids(name: str, value: Any) -> tuple[str, ...]:
    if isinstance(value, str) or not isinstance(value, Sequence):
        return _first(name, value)
    if not value:
        raise ValueError(f"{name}={value!r} names no device. Expected ids of GPUs.")
    existing = list_logical()
    ids = [
        whole_number(entry, f"{name} holds {entry!r}", _NUMBER_OR_IDS, least=0)
        for entry in value
    ]
    requests = [DeviceRequest(_kind(existing), index) for index in ids]
    return select_devices(tuple(requests), existing)


def _named(name: str, value: Any) -> tuple[str, ...]:
    return select_devices(parse_devices(value), list_logical())


_CHOICES: dict[str, Callable[[str, Any], tuple[str, ...]]] = {
    "gpu_count": _first,
    "gpus": _number_or_ids,
    "devices": _named,
}
