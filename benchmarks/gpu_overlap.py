"""How well copies and computing overlap on simulated GPUs, and the memory it takes.

    python benchmarks/gpu_overlap.py --output=benchmarks/results/gpu_overlap.json

A case is a number of devices, and how long a batch takes to be copied to a device,
computed, and copied back, relative to 20 ms. It runs in a new process, which loads the
plugin of `tests/gpu_rig`. 40 batches of 256 rows of 784 floats per device are run, with
an explicit batch size and otherwise default settings. A share is the time that the
longest of the three needs on its own, divided by that of the run: the median of several
warm runs. `keras` is Keras' own `predict` of a model under the same strategy with the
same batch size.

`--cases=memory` gives the peak memory of a device by `in_flight`, in chunks of one
batch each way.
"""

import json
import os
import pathlib
import subprocess
import sys
import tempfile
import time

import numpy as np
from absl import app, flags

CASES = ("1:1:1:0", "2:1:1:0", "1:0.5:1:0", "1:0:1:1", "1:1:1:1", "8:0:1:0")
ROWS, COLUMNS, BATCHES, SECONDS = 256, 784, 40, 0.02
RIG = pathlib.Path(__file__).parents[1] / "tests/gpu_rig"

_PLUGIN = flags.DEFINE_string("plugin", None, "The built plugin; built where missing.")
_CASES = flags.DEFINE_list("cases", list(CASES), "DEVICES:IN:COMPUTE:OUT, each.")
_WAYS = flags.DEFINE_list("ways", "threads,mirrored", "Engines, and keras.")
_RUNS = flags.DEFINE_integer("runs", 3, "Warm runs of each.")
_OUTPUT = flags.DEFINE_string("output", None, "File that the figures are added to.")
_CHILD = flags.DEFINE_string("child", None, "Used by the script itself.")


def set_times(into: float, compute: float, out: float, width: int) -> None:
    """Sets how long a batch takes in each stage, relative to `SECONDS`; 0: no time."""
    import rig  # pyright: ignore[reportMissingImports]

    gigabytes = 4e-9 * ROWS / SECONDS
    rig.change(
        kernel_us=compute * SECONDS * 1e6,
        h2d_gbps=gigabytes * COLUMNS / into if into else 0,
        d2h_gbps=gigabytes * width / out if out else 0,
    )


def replicated(devices: int, width: int):
    """A strategy over the devices, and a model under it."""
    import keras
    import tensorflow as tf

    strategy = tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(devices)])
    with strategy.scope():
        inputs = keras.Input((COLUMNS,))
        return strategy, keras.Model(inputs, keras.layers.Dense(width)(inputs))


def rows_for(devices: int) -> np.ndarray:
    """Random rows."""
    shape = (ROWS * BATCHES * devices, COLUMNS)
    return np.random.default_rng(0).random(shape, np.float32)


def overlap(case: str) -> None:
    """Prints the figures of one case."""
    import rig  # pyright: ignore[reportMissingImports]

    import keras_mgpu_strategy as mgpu

    devices, *parts = (float(part) for part in case.split(":"))
    devices, (into, compute, out) = int(devices), parts
    width, x, expected = COLUMNS if out else 10, rows_for(devices), None
    strategy, model = replicated(devices, width)
    set_times(into, compute, out, width)
    for way in _WAYS.value:
        with strategy.scope():
            chosen = model if way == "keras" else mgpu.Predictor(model, engine=way)
        seconds, busy = [], []
        for run in range(2 + _RUNS.value):  # two of them to compile and to warm up
            rig.reset(devices)
            began = time.perf_counter()
            result = chosen.predict(x, ROWS * devices, verbose=0)
            if run >= 2:
                seconds.append(time.perf_counter() - began)
                busy.append(rig.busy(0))
        expected = result if expected is None else expected
        np.testing.assert_array_equal(result, expected)
        middle = int(np.argsort(seconds)[len(seconds) // 2])
        outcome = {
            "case": case,
            "way": way,
            "share": round(BATCHES * SECONDS * max(parts) / seconds[middle], 3),
            "seconds": [round(value, 3) for value in seconds],
            "first_device": {k: round(v, 3) for k, v in busy[middle].items()},
            "report": "" if way == "keras" else chosen.report.bottleneck.split(":")[0],
        }
        print(json.dumps(outcome), flush=True)


def memory(_: str) -> None:
    """Prints the highest memory of a device, by engine and `in_flight`."""
    import tensorflow as tf

    import keras_mgpu_strategy as mgpu

    x, chunk = rows_for(1), 2 * 4 * ROWS * COLUMNS
    strategy, model = replicated(1, COLUMNS)
    set_times(1, 1, 1, COLUMNS)
    for way in _WAYS.value:
        for in_flight in (1, 2, 3, 4):
            with strategy.scope():
                chosen = mgpu.Predictor(model, engine=way, in_flight=in_flight)
            chosen.predict(x, ROWS, verbose=0)
            held = tf.config.experimental.get_memory_info("GPU:0")["current"]
            tf.config.experimental.reset_memory_stats("GPU:0")
            began = time.perf_counter()
            chosen.predict(x, ROWS, verbose=0)
            seconds = time.perf_counter() - began
            peak = tf.config.experimental.get_memory_info("GPU:0")["peak"] - held
            outcome = {
                "case": "memory",
                "way": way,
                "in_flight": in_flight,
                "chunk_rows": chosen.report.chunk_rows,
                "peak_bytes": peak,
                "chunks": round(peak / (chunk * chosen.report.chunk_rows / ROWS), 2),
                "share": round(BATCHES * SECONDS / seconds, 3),
            }
            print(json.dumps(outcome), flush=True)


def run_case(case: str, plugin: pathlib.Path) -> list[dict]:
    """Runs a case in a new process."""
    paths = [str(RIG), str(RIG / "start"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(plugin),
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
        "RIG_GPUS": "1" if case == "memory" else case.partition(":")[0],
    }
    command = [sys.executable, *sys.argv, f"--child={case}"]
    ran = subprocess.run(
        command, env=environment, check=True, stdout=subprocess.PIPE, text=True
    )
    lines = [line for line in ran.stdout.splitlines() if line.startswith("{")]
    print(*lines, sep="\n", flush=True)
    return [json.loads(line) for line in lines]


def main(_: list[str]) -> None:
    """Runs each case, and saves what it prints."""
    if _CHILD.value:
        {"memory": memory}.get(_CHILD.value, overlap)(_CHILD.value)
        return
    with tempfile.TemporaryDirectory() as folder:
        plugin = pathlib.Path(_PLUGIN.value or f"{folder}/librig.so").resolve()
        if not plugin.exists():
            build = [sys.executable, str(RIG / "build_rig.py"), str(plugin)]
            subprocess.run(build, check=True)
        outcome = [line for case in _CASES.value for line in run_case(case, plugin)]
    if _OUTPUT.value:
        path = pathlib.Path(_OUTPUT.value)
        known = json.loads(path.read_text()) if path.exists() else []
        rows = ",\n".join(json.dumps(line) for line in known + outcome)
        path.write_text(f"[\n{rows}\n]\n")


if __name__ == "__main__":
    app.run(main)
