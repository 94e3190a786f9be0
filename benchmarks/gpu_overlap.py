"""How well copies and computing overlap, on pretended GPUs.

    python benchmarks/gpu_overlap.py --rig=FOLDER

FOLDER holds the rig that `tests/gpu_rig/build.sh` builds; `GPU_RIG` in the environment
does as well. Each case runs in a process of its own, which loads the rig: so many
devices, and so long for copies to them, for computing and for copies from them, against
20 ms. 40 batches of 256 rows of 784 floats per device are run, with an explicit batch
size and else default settings. A figure is the time that the longest of the three needs
on its own, divided by that of the run: the median of some warm runs. `keras` is Keras'
own `predict` of a model under the same strategy with the same batch size.
"""

import json
import os
import pathlib
import subprocess
import sys
import time

import numpy as np
from absl import app, flags

CASES = ("1:1:1:0", "2:1:1:0", "1:0.5:1:0", "1:0:1:1", "1:1:1:1", "8:0:1:0")
ROWS, COLUMNS, BATCHES, SECONDS = 256, 784, 40, 0.02

_RIG = flags.DEFINE_string("rig", os.environ.get("GPU_RIG"), "Folder of the rig.")
_CASES = flags.DEFINE_list("cases", list(CASES), "DEVICES:IN:COMPUTE:OUT, each.")
_WAYS = flags.DEFINE_list("ways", "threads,mirrored", "Engines, and keras.")
_RUNS = flags.DEFINE_integer("runs", 3, "Warm runs of each.")
_CHILD = flags.DEFINE_string("child", None, "Used by the script itself.")


def measure(case: str) -> None:
    """Prints the figures of one case; in a process with the rig."""
    import keras
    import rig  # pyright: ignore[reportMissingImports]
    import tensorflow as tf

    import keras_mgpu_strategy as mgpu

    devices, *parts = (float(part) for part in case.split(":"))
    devices, (into, compute, out) = int(devices), parts
    width = COLUMNS if out else 10
    x = np.random.default_rng(0).random((ROWS * BATCHES * devices, COLUMNS), np.float32)
    strategy = tf.distribute.MirroredStrategy([f"GPU:{i}" for i in range(devices)])
    with strategy.scope():
        inputs = keras.Input((COLUMNS,))
        model = keras.Model(inputs, keras.layers.Dense(width)(inputs))
        ways = {
            way: model if way == "keras" else mgpu.Predictor(model, engine=way)
            for way in _WAYS.value
        }
    run = {
        way: lambda chosen=chosen: chosen.predict(x, ROWS * devices, verbose=0)
        for way, chosen in ways.items()
    }
    expected = None
    settings = {"kernel_us": compute * SECONDS * 1e6}
    size = 4e-9 * ROWS / SECONDS
    settings |= {"h2d_gbps": size * COLUMNS / into} if into else {}
    settings |= {"d2h_gbps": size * width / out} if out else {}
    for way, predict in run.items():
        result = predict()
        expected = result if expected is None else expected
        np.testing.assert_array_equal(result, expected)
        rig.change(**settings)
        predict()
        seconds, busy = [], []
        for _ in range(_RUNS.value):
            rig.reset(devices)
            began = time.perf_counter()
            predict()
            seconds.append(time.perf_counter() - began)
            busy.append(rig.busy(0))
        middle = int(np.argsort(seconds)[len(seconds) // 2])
        ideal = BATCHES * SECONDS * max(parts)
        report = getattr(ways[way], "report", None)
        print(
            json.dumps(
                {
                    "case": case,
                    "way": way,
                    "share": round(ideal / seconds[middle], 3),
                    "seconds": [round(value, 3) for value in seconds],
                    "busy": {
                        k: round(v, 2) for k, v in busy[middle].items() if v > 0.005
                    },
                    "report": report and report.bottleneck.partition(":")[0],
                }
            ),
            flush=True,
        )
        rig.change(kernel_us=0, h2d_gbps=0, d2h_gbps=0)


def main(_: list[str]) -> None:
    """Starts a process for each case."""
    if _CHILD.value:
        measure(_CHILD.value)
        return
    folder = pathlib.Path(_RIG.value).resolve()
    paths = [str(folder), str(folder / "start"), os.environ.get("PYTHONPATH", "")]
    environment = os.environ | {
        "TF_PLUGGABLE_DEVICE_LIBRARY_PATH": str(folder / "librig.so"),
        "PYTHONPATH": os.pathsep.join(paths),
        "TF_CPP_MIN_LOG_LEVEL": "3",
    }
    for case in _CASES.value:
        environment["RIG_GPUS"] = case.partition(":")[0]
        command = [sys.executable, *sys.argv, f"--child={case}"]
        subprocess.run(command, env=environment, check=True)


if __name__ == "__main__":
    app.run(main)
