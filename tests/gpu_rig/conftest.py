"""Builds the plugin whose devices are simulated GPUs, and runs code on them."""

import fcntl
import json
import os
import shutil
import subprocess
import sys

import pytest
from build_rig import COMPILER, HERE, build
from on_rig import environment


@pytest.fixture(scope="session")
def shared_folder(tmp_path_factory):
    """A folder that all workers of pytest share."""
    folder = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        folder = folder.parent
    (folder / "gpu_rig").mkdir(exist_ok=True)
    return folder / "gpu_rig"


def _once(path, make):
    """Makes a file in one worker, for which the others wait."""
    with open(f"{path}.lock", "w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not path.exists():
            made = path.with_suffix(".new")
            make(made)
            made.rename(path)
    return path


@pytest.fixture(scope="session")
def plugin(shared_folder):
    """The path of the built plugin."""
    if shutil.which(COMPILER) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{COMPILER} is missing, and these tests are not skipped in CI")
        pytest.skip(f"no C++ compiler ({COMPILER})")
    return _once(shared_folder / "librig.so", build)


@pytest.fixture(scope="session")
def on_gpus(plugin, shared_folder):
    """Runs a function of a module of cases on simulated GPUs; returns what it returns.

    In its own process, since a plugin is loaded with TensorFlow. The same call
    runs once, since starting TensorFlow takes longer than most of the cases.
    """

    def run(name, *arguments, num_gpus=2, log_level=3):
        asked = json.dumps(arguments)
        label = "".join(c if c.isalnum() else "_" for c in f"{name} {asked} {num_gpus}")
        settings = {"RIG_GPUS": str(num_gpus), "TF_CPP_MIN_LOG_LEVEL": str(log_level)}
        command = [sys.executable, str(HERE / "child.py"), name, asked]

        def make(path):
            ran = subprocess.run(
                command,
                env=environment(plugin, settings),
                capture_output=True,
                text=True,
                timeout=600,
            )
            outcome = {"code": ran.returncode, "out": ran.stdout, "log": ran.stderr}
            path.write_text(json.dumps(outcome))

        ran = json.loads(_once(shared_folder / f"{label}.json", make).read_text())
        assert ran["code"] == 0, ran["log"][-4000:]
        return json.loads(ran["out"].splitlines()[-1]), ran["log"]

    return run
