"""Finds the modules of the folder `benchmarks/`."""

import pathlib
import subprocess
import sys

import pytest

from tests.measuring import inherited_variables

ROOT = pathlib.Path(__file__).parents[2]
sys.path.append(str(ROOT / "benchmarks"))


@pytest.fixture
def run_script():
    """Runs a script of the folder in a new process."""

    def run(name, *words):
        own = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
        return subprocess.run(
            [sys.executable, f"benchmarks/{name}", *words],
            capture_output=True,
            text=True,
            timeout=600,
            cwd=ROOT,
            env=inherited_variables() | own,
        )

    return run
