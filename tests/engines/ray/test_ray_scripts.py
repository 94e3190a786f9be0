"""Whole programs, as users run them: how they start, end and are ended.

Each checks what is left afterwards: processes, ports, files.
"""

import os
import pathlib
import re
import signal
import subprocess
import sys
import time

import keras
import pytest

pytestmark = pytest.mark.slow

ROOT = pathlib.Path(__file__).parents[3]
LOOPBACK = {"0100007F", "0000000000000000FFFF00000100007F"}

START = """
import numpy as np
import keras_mgpu_strategy as mgpu

one = mgpu.RayOptions(num_actors=1, cpus_per_actor=1)
predictor = mgpu.load("model.keras", engine="ray", ray=one)
"""

ENDLESS = """
import pathlib

def listeners():
    lines = []
    for name in ("tcp", "tcp6"):
        lines += pathlib.Path("/proc/net", name).read_text().splitlines()[1:]
    words = [line.split() for line in lines]
    return {word[1] for word in words if word[3] == "0A"}

before = listeners()
START
def rows():
    while True:
        yield np.zeros((8, 2), "f4")

for batch in predictor.predict_iter(rows(), 8):
    if batch.start == 0:
        print(*(listeners() - before), flush=True)
"""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("scripts")
    inputs = keras.Input((2,))
    keras.Model(inputs, keras.layers.Dense(3)(inputs)).save(folder / "model.keras")
    return folder


@pytest.fixture
def start(folder, tmp_path):
    """Starts a program in its own session and home folder."""
    home = tmp_path / "home"
    home.mkdir()

    def start(code):
        # Distinguishes this program's processes from all others; also Ray's folder.
        environment = {
            "HOME": str(home),
            "PATH": os.environ["PATH"],
            "PYTHONPATH": str(ROOT),
            "TF_CPP_MIN_LOG_LEVEL": "3",
            "MGPU_TEST": str(tmp_path),
        }
        return subprocess.Popen(
            [sys.executable, "-c", code],
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            start_new_session=True,
        )

    start.home = home
    start.mark = f"MGPU_TEST={tmp_path}".encode()
    return start


def processes_of(mark):
    """Command lines of all processes that were started with a mark."""
    found = []
    for path in pathlib.Path("/proc").glob("[0-9]*"):
        try:
            if mark in (path / "environ").read_bytes().split(b"\0"):
                found.append((path / "cmdline").read_bytes().decode())
        except OSError:
            continue
    return found


def assert_none_left(mark, besides="$"):
    deadline, left = time.monotonic() + 60, [""]
    while left and time.monotonic() < deadline:
        left = [line for line in processes_of(mark) if not re.match(besides, line)]
        time.sleep(0.2)
    assert left == []


def without_tensorflow(text):
    """Drops what TensorFlow prints when it starts, whatever its settings."""
    return [
        line
        for line in text.splitlines()
        if not re.match(r"WARNING: All log|[IEW]0000 |^$", line)
    ]


def test_a_program_is_quiet_and_private_and_leaves_nothing_behind_ctrl_c(start):
    program = start(ENDLESS.replace("START", START))
    addresses = {place.partition(":")[0] for place in program.stdout.readline().split()}
    assert addresses, program.stderr.read()
    assert addresses <= LOOPBACK
    assert any("ray::Worker" in line for line in processes_of(start.mark))
    os.killpg(program.pid, signal.SIGINT)  # reaches all processes in the foreground
    _, errors = program.communicate(timeout=300)
    assert program.returncode != 0
    said = without_tensorflow(errors)
    assert said[0].startswith("Traceback")
    assert said[-1] == "KeyboardInterrupt"
    # These are Keras' and Matplotlib's own.
    assert {path.name for path in start.home.iterdir()} <= {
        ".cache", ".config", ".keras",
    }  # fmt: skip
    assert not [path for path in start.home.rglob("*") if "ray" in path.name]
    assert_none_left(start.mark)


def test_a_program_that_is_killed_leaves_no_device_in_use(start):
    program = start(ENDLESS.replace("START", START))
    assert program.stdout.readline(), program.stderr.read()
    program.kill()
    program.communicate(timeout=300)
    # Two agents of Ray, which hold no device, end only after a while.
    assert_none_left(start.mark, besides=r"ray::(DashboardAgent|RuntimeEnvAgent)")


GPUS = """
import ray
ray.init(num_cpus=8, num_gpus=2, include_dashboard=False, log_to_driver=False)
import os
from keras_mgpu_strategy.engines.ray.plan import RayOptions, make_plan

class Shows:
    def gpus(self):
        return os.environ.get("CUDA_VISIBLE_DEVICES")

def gpus_of(**options):
    plan = make_plan(RayOptions(**options), ray.nodes())
    start = ray.remote(Shows).options(**plan.resources).remote
    actors = [start() for _ in range(plan.num_actors)]
    found = sorted(ray.get([actor.gpus.remote() for actor in actors]))
    for actor in actors:
        ray.kill(actor)
    return "".join(found)

print(gpus_of(), gpus_of(replicas_per_device=2))
import keras_mgpu_strategy as mgpu
try:
    mgpu.load("model.keras", engine="ray")
except RuntimeError as error:
    print(error)
"""


def test_gpus_are_shared_as_planned_and_one_that_is_not_there_is_an_error(start):
    """Ray counts the GPUs that it is given; TensorFlow shows whether there are any."""
    program = start(GPUS)
    output, errors = program.communicate(timeout=300)
    assert program.returncode == 0, errors
    shared, error = output.splitlines()
    assert shared == "01 0011"
    assert re.match(r"Ray has given process \d+ on .* the GPU [01], but", error)
    assert "TensorFlow sees no GPU there. Install tensorflow[and-cuda]" in error


def test_errors_of_connecting_come_at_once(folder):
    # In its own process: this one may have joined a Ray.
    code = """
import sys
import time
import ray
import keras_mgpu_strategy as mgpu
mgpu.Predictor  # loads TensorFlow, which takes seconds of its own
for address in ("127.0.0.1:1", "ray://127.0.0.1:1", None):
    if address is None:
        sys.modules["ray"] = None  # as if it were not installed
    began = time.monotonic()
    try:
        mgpu.load("model.keras", engine="ray", ray=mgpu.RayOptions(ray_address=address))
    except (ConnectionError, ImportError) as error:
        print(time.monotonic() - began, error)
"""
    done = subprocess.run(
        [sys.executable, "-c", code],
        cwd=folder,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=300,
    )
    plain, client, missing = done.stdout.splitlines()
    assert "ray_address='127.0.0.1:1': nothing answers there" in plain
    assert "ray_address='ray://127.0.0.1:1': nothing answers there" in client
    assert 'pip install "keras_mgpu_strategy[ray]"' in missing
    assert max(float(line.split()[0]) for line in done.stdout.splitlines()) < 20
