"""Where and with what a report was measured. Imports no TensorFlow."""

import datetime
import importlib.metadata
import os
import pathlib
import platform
import subprocess
from typing import Any

from keras_mgpu_strategy.system.environment import num_cores

_PACKAGES = ("tensorflow", "keras", "numpy")


def describe() -> dict[str, Any]:
    """JSON record of versions, machine and commit."""
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat("T", "seconds"),
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(
            _git("status", "--porcelain", "--untracked-files=no")
        ),
        "versions": {"python": platform.python_version(), **_versions()},
        "machine": {
            "system": f"{platform.system()} {platform.machine()}",
            "cpu": _cpu_model(),
            "cpu_count": os.cpu_count(),
            "usable_cpus": num_cores(),
        },
    }


def shown(described: dict[str, Any], command: str) -> str:
    """The text above a table, as Markdown.

    Args:
        described: As `describe` returns it.
        command: What was run.
    """
    versions = ", ".join(f"{k} {v}" for k, v in described["versions"].items() if v)
    machine = described["machine"]
    return (
        f"`{command}`\n\n{machine['usable_cpus']} CPUs ({machine['cpu']}), {versions}, "
        f"commit {(described['commit'] or 'unknown')[:10]}, {described['date'][:10]}."
    )


def _versions() -> dict[str, str | None]:
    return {name: _version(name) for name in _PACKAGES}


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def _git(*arguments: str) -> str | None:
    """Output of git in this file's checkout; None outside of one."""
    folder = pathlib.Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()


def _cpu_model() -> str:
    info = pathlib.Path("/proc/cpuinfo")
    lines = info.read_text("utf-8").splitlines() if info.exists() else []
    names = [line.partition(":")[2].strip() for line in lines if "model name" in line]
    return names[0] if names else platform.processor()
