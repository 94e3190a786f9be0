"""Where and with what a report was measured. Imports no TensorFlow."""

import contextlib
import datetime
import importlib.metadata
import os
import pathlib
import platform
from typing import Any

from keras_mgpu_strategy.system.environment import num_cores
from keras_mgpu_strategy.version import __version__


def describe() -> dict[str, Any]:
    """JSON record of the time, the versions and the machine."""
    versions = {"keras_mgpu_strategy": __version__, "python": platform.python_version()}
    packages = ("tensorflow", "keras", "numpy")
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        "versions": versions | {name: _version(name) for name in packages},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_model(),
            "cpu_count": os.cpu_count(),
            "usable_cpus": num_cores(),
        },
    }


def shown(described: dict[str, Any], command: str) -> str:
    """The text above a table, as Markdown: what was run, on what, and when."""
    machine = described["machine"]
    versions = ", ".join(f"{k} {v}" for k, v in described["versions"].items() if v)
    return (
        f"`{command}`\n\n{machine['usable_cpus']} CPUs ({machine['cpu']}), {versions}, "
        f"{described['date'][:10]}."
    )


def _version(name: str) -> str | None:
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(name)
    return None


def _cpu_model() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()
