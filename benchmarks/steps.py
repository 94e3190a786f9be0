"""What each way to compile a model gains, and ONNX Runtime and OpenVINO on a CPU.

    python benchmarks/steps.py
    python benchmarks/steps.py --models=mlp:1024,lstm_20x8:64 --replicas=1 --onednn=1
    python benchmarks/steps.py --models=mlp:1024,transformer:64 --devices=gpu --onednn=1

A line for each model and batch, number of replicas, and oneDNN on or off, measured by
`mgpu benchmark` in a new process: rows per second of `Predictor.predict` with
`compile="plain"`, and by what factor the others differ, each by the fastest of samples
taken in turn. "auto" is measured once it has chosen, and its cell has the choice. `~`
marks what is so slow that only the first batches were measured; a cell may be an error.
"""

import argparse
import os
import pathlib
import shlex
import sys
import tempfile

import first_call
import keras
import tensorflow as tf
from suite import models

from keras_mgpu_strategy.benchmark import processes, provenance, tables
from keras_mgpu_strategy.benchmark.options import RUNTIMES, STEPS, BenchmarkOptions
from keras_mgpu_strategy.system import environment

AIMED_AT = "mlp:1024,mobilenet:16,lstm_20x8:64,cnn_bn:64,resnet50:4,transformer:64"
SUITE = (
    "tiny:1024,mlp:32,cnn:512,resnet50:8,mobilenet:32,lstm:256,big_outputs:128,"
    "two_inputs:512"
)
OWN = {"lstm_20x8": "lstm", "cnn_bn": "cnn"}
CONTENDERS = (*STEPS, "mgpu_threads", *RUNTIMES)
TITLES = ("frozen", "xla", "auto", "ONNX Runtime", "OpenVINO")


def main():
    """Prints the table as it grows."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default=f"{AIMED_AT},{SUITE}", help="name:batch")
    parser.add_argument("--replicas", default="1,2")
    parser.add_argument("--onednn", default="1,0")
    parser.add_argument("--devices", default="cpu", choices=["cpu", "gpu"])
    parser.add_argument("--seconds", type=float, default=1.0, help="of a sample")
    parser.add_argument("--repetitions", type=int, default=7)
    options = parser.parse_args()
    tf.config.set_visible_devices([], "GPU")  # for the processes that measure
    command = shlex.join(["python", *sys.argv])
    print(provenance.shown(provenance.describe(), command))
    print("Each replica has one thread on a CPU.\n")
    columns = ("model, batch", "oneDNN", "replicas", "plain, rows/s", *TITLES)
    print(tables.table(columns, []))
    with tempfile.TemporaryDirectory() as folder, environment.quiet_start():
        for name in options.models.split(","):
            path = saved(name.partition(":")[0], folder)
            for onednn in options.onednn.split(","):
                os.environ["TF_ENABLE_ONEDNN_OPTS"] = onednn
                for replicas in options.replicas.split(","):
                    record = measured(path, name, int(replicas), options)
                    switch = "on" if onednn == "1" else "off"
                    cells = [name.replace(":", ", "), switch, replicas, *shown(record)]
                    print(f"| {' | '.join(cells)} |", flush=True)


def saved(name, folder):
    """The path of a file with a model."""
    path = pathlib.Path(folder, f"{name}.keras")
    if not path.exists():
        own = OWN.get(name)
        model = first_call.made(keras, own) if own else models.build(name, seed=0)
        model.save(path)
    return path


def measured(path, name, replicas, options):
    """The record of `mgpu benchmark`."""
    return processes.run_job(
        BenchmarkOptions(
            models=(str(path),),
            batches=(int(name.partition(":")[2]),),
            replicas=(replicas,),
            devices=options.devices,
            contenders=CONTENDERS,
            seconds=options.seconds,
            row_multiple=int(name.partition(":")[2]) * replicas,
            repetitions=options.repetitions,
        )
    )


def shown(record):
    """The last cells of a line."""
    plain, *others = (fastest(record, name) for name in CONTENDERS)
    notes = [note(record, name) for name in CONTENDERS[1:]]
    ratios = (tables.factor(rate and rate / plain) for rate in others)
    cells = map(" ".join, zip(ratios, notes, strict=True))
    return [tables.number(plain), *map(str.strip, cells)]


def fastest(record, name):
    """Rows per second of the fastest sample; None if there is none."""
    return max(record["contenders"].get(name, {}).get("rows_per_second", [None]))


def note(record, name):
    """What is needed to understand the ratio."""
    own = record["contenders"].get(name, {"error": "not installed, or not on a CPU"})
    if "error" in own:
        return f"({' '.join(own['error'].split())[:120].replace('|', '/')})"
    notes = [own["report"]["step"]] if name == "mgpu_threads" else []
    notes += tables.apart(record, name)
    text = f"({'; '.join(notes)})" if notes else ""
    return f"~ {text}" if own["rows"] < record["rows"] else text


if __name__ == "__main__":
    main()
