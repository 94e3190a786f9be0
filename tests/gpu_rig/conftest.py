"""Builds the plugin whose devices pretend to be GPUs, and runs code on them."""

import json
import os
import pathlib
import shutil
import subprocess
import sys

import pytest
import tensorflow as tf

HERE = pathlib.Path(__file__).parent
ROOT = HERE.parents[1]


@pytest.fixture(scope="session")
def plugin(tmp_path_factory):
    """The path of the built plugin; half a minute, once."""
    compiler = os.environ.get("CXX", "g++")
    if shutil.which(compiler) is None:
        if os.environ.get("CI"):
            pytest.fail(f"{compiler} is missing, and these tests are not skipped in CI")
        pytest.skip(f"no C++ compiler ({compiler})")
    built = tmp_path_factory.mktemp("gpu_rig") / "librig.so"
    sources = [str(HERE / "rig_device.cc"), str(HERE / "rig_kernels.cc")]
    flags = [*tf.sysconfig.get_compile_flags(), *tf.sysconfig.get_link_flags()]
    command = [compiler, *("-O2", "-DNDEBUG", "-fPIC", "-shared", "-w"), *sources]
    subprocess.run([*command, "-o", str(built), *flags, "-lpthread"], check=True)
    return built


@pytest.fixture
def on_gpus(plugin):
    """Runs a function of `cases.py` on pretended GPUs; returns what it returns.

    In a process of its own, since a plugin is loaded as TensorFlow is.
    """

    def run(name, *arguments, num_gpus=2, **settings):
        paths = [str(ROOT), str(HERE), str(HERE / "start")]
        variables = {f"RIG_{name.upper()}": str(v) for name, v in settings.items()}
        environment = os.environ | variables
        environment |= {
            "PYTHONPATH": os.pathsep.join(paths),
            "RIG_GPUS": str(num_gpus),
            "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(plugin),
            "TF_CPP_MIN_LOG_LEVEL": "3",
        }
        command = [sys.executable, str(HERE / "cases.py"), name, json.dumps(arguments)]
        ran = subprocess.run(
            command, env=environment, capture_output=True, text=True, timeout=600
        )
        assert ran.returncode == 0, ran.stderr[-4000:]
        return json.loads(ran.stdout.splitlines()[-1])

    return run
