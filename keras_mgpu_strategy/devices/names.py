"""Devices by name: list, parse, check and split them.

A missing device, which TensorFlow would silently replace, is an error that lists the
others, and so is one named twice. Devices are named `"GPU:0"`, as by TensorFlow, and
keep the order in which they were requested.
"""

import re
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.devices import gpu_memory
from keras_mgpu_strategy.system.integers import as_int
from keras_mgpu_strategy.system.kernel import in_kernel

Devices: TypeAlias = str | int | Sequence[str | int] | None
"""What a user may write for devices; see `parse_devices`."""

KINDS = ("GPU", "CPU")

_EXPECTED = (
    'Expected names like "gpu:0" or "cpu:0", a list or comma-separated string of '
    'them, GPU indices like 0 or [0, 1], or "gpu" or "cpu" for all of a kind'
)
_NAME = re.compile(
    r"(?:/job:localhost/replica:0/task:0)?/?(?:(?:physical_)?device:)?"
    r"(?P<kind>gpu|cpu)(?::(?P<index>\d{1,9}))?",
    re.IGNORECASE | re.ASCII,
)


class DeviceRequest(NamedTuple):
    """One device, or all devices of a kind, "GPU" or "CPU", if the index is None."""

    kind: str
    index: int | None = None


def list_logical() -> tuple[str, ...]:
    """Names of TensorFlow's logical devices, GPUs first. Starts TensorFlow."""
    return tuple(by_name(tf.config.list_logical_devices()))


def list_physical() -> tuple[str, ...]:
    """Names of the physical devices that are visible to TensorFlow, GPUs first."""
    return tuple(by_name(tf.config.get_visible_devices()))


def by_name(devices: Sequence[Any]) -> dict[str, Any]:
    """Name, such as `"GPU:0"` -> TensorFlow's device, GPUs first."""
    ordered = [d for kind in KINDS for d in devices if d.device_type == kind]
    return {":".join(device.name.split(":")[-2:]): device for device in ordered}


def short_name(device: str) -> str:
    """`"GPU:0"` for a full name of TensorFlow's; any other name as it is."""
    return device.rpartition("device:")[2]


def parse_devices(devices: Devices) -> tuple[DeviceRequest, ...] | None:
    """Parses what a user wrote (see `scope`), without looking at the machine."""
    if devices is None:
        return None
    entries: Any = [devices]
    if isinstance(devices, Sequence) and not isinstance(devices, str | bytes):
        entries = devices
    requests = tuple(request for entry in entries for request in _parse_entry(entry))
    if not requests:
        raise ValueError(f"devices={devices!r} names no device. {_EXPECTED}.")
    return requests


def select_devices(
    requests: tuple[DeviceRequest, ...] | None, existing: Sequence[str]
) -> tuple[str, ...]:
    """Picks existing devices (None: every GPU, or the first CPU), or a ValueError."""
    if requests is None:
        return tuple(_of_kind("GPU", existing) or existing[:1])
    names = [name for request in requests for name in _matches(request, existing)]
    repeated = sorted({name for name in names if names.count(name) > 1})
    if repeated:
        raise ValueError(
            f"Devices asked for more than once: {', '.join(repeated)}. Name each "
            f"device once; for several replicas on one device use replicas_per_device."
        )
    return tuple(names)


def split_devices(names: Sequence[str], num_parts: int) -> tuple[str, ...]:
    """Splits visible devices unless already split so; parts of the first come first."""
    visible = by_name(tf.config.get_visible_devices())
    for name in names:
        _split(name, visible[name], num_parts)
    counts = {name: _num_parts(device) for name, device in visible.items()}
    return select_parts(names, num_parts, counts, list_logical())


def select_parts(
    names: Sequence[str],
    num_parts: int,
    counts: Mapping[str, int],
    existing: Sequence[str],
) -> tuple[str, ...]:
    """Picks parts of split devices; `counts` has every visible device, in order."""
    chosen = tuple(part for name in names for part in _parts_of(name, counts))
    is_split = all(counts[name] == num_parts for name in names)
    if not is_split or not set(chosen) <= set(existing):
        raise RuntimeError(
            f"TensorFlow did not split {', '.join(names)} into {num_parts} logical "
            f"devices each; it has {', '.join(existing)}."
        )
    return chosen


def _parse_entry(entry: Any) -> list[DeviceRequest]:
    if isinstance(entry, str):
        return [_parse_name(name) for name in entry.split(",")]
    said = f"A device is given as {entry!r}"
    return [DeviceRequest("GPU", as_int(entry, said, f"{_EXPECTED}.", least=0))]


def _parse_name(name: str) -> DeviceRequest:
    match = _NAME.fullmatch(name.strip())
    if match is None:
        raise ValueError(f"Unknown device {name!r:.60}. {_EXPECTED}.")
    index = match["index"]
    return DeviceRequest(match["kind"].upper(), None if index is None else int(index))


def _matches(request: DeviceRequest, existing: Sequence[str]) -> list[str]:
    wanted, found = request.kind, _of_kind(request.kind, existing)
    if request.index is not None:
        wanted = f"{request.kind}:{request.index}"
        found = [name for name in found if name == wanted]
    if not found:
        raise ValueError(
            f"There is no device {wanted} on this machine. Devices that exist: "
            f"{', '.join(existing)}."
        )
    return found


def _split(name: str, device: Any, num_parts: int) -> None:
    configured = tf.config.get_logical_device_configuration(device)
    if configured and len(configured) == num_parts:
        return
    limit = gpu_memory.memory_limit(num_parts) if name.startswith("GPU") else None
    part = tf.config.LogicalDeviceConfiguration(memory_limit=limit)
    try:
        if configured and len(configured) > 1:
            raise RuntimeError(f"{len(configured)} parts are configured")
        tf.config.set_logical_device_configuration(device, [part] * num_parts)
    except RuntimeError as error:
        raise RuntimeError(
            f"replicas_per_device={num_parts} needs {name} split into {num_parts} "
            f"logical devices, but it has {_num_parts(device)}, and TensorFlow does "
            f"not change this once it has started. {_how_to_be_first(num_parts)}"
        ) from error


def _how_to_be_first(num_parts: int) -> str:
    call = f"scope(replicas_per_device={num_parts})"
    others = (
        "before anything else that uses TensorFlow (before the first tensor, layer or "
        "model)"
    )
    if in_kernel():
        return f"Restart the kernel, and put {call} into the first cell, {others}."
    return f"Call {call} {others}, in a new process."


def _num_parts(device: Any) -> int:
    return len(tf.config.get_logical_device_configuration(device) or [device])


def _parts_of(name: str, counts: Mapping[str, int]) -> list[str]:
    """The logical devices of a physical one, which TensorFlow numbers throughout."""
    kind = name.partition(":")[0]
    alike = _of_kind(kind, [*counts])
    first = sum(counts[other] for other in alike[: alike.index(name)])
    return [f"{kind}:{first + part}" for part in range(counts[name])]


def _of_kind(kind: str, names: Sequence[str]) -> list[str]:
    return [name for name in names if name.startswith(f"{kind}:")]
