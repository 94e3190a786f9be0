"""Where and with what a report was measured. Imports no TensorFlow."""

import pathlib
import subprocess
from typing import Any

from keras_mgpu_strategy.benchmark import provenance


def describe() -> dict[str, Any]:
    """A JSON record of versions, machine and commit."""
    changes = _git("status", "--porcelain", "--untracked-files=no")
    return provenance.describe() | {
        "commit": _git("rev-parse", "HEAD"),
        "uncommitted_changes": bool(changes),
    }


def shown(described: dict[str, Any], command: str) -> str:
    """The text above a table, as Markdown: what was run, on what, and when."""
    commit = (described["commit"] or "unknown")[:10]
    versions = described["versions"] | {"commit": commit}
    return provenance.shown(described | {"versions": versions}, command)


def _git(*arguments: str) -> str | None:
    """The output of git in this file's checkout; None outside a checkout."""
    folder = pathlib.Path(__file__).parent
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=folder, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.SubprocessError):
        return None
    return done.stdout.strip()
