"""How long a first call takes: a model read from disk, and its first results.

    python benchmarks/first_call.py --replicas=1,2,4,8
    python benchmarks/first_call.py --ensemble=5 --replicas=2

Each sample is a new process. Its clock starts once Keras and this package have read a
small model and predicted with it, so that neither pays for what TensorFlow does once.
Samples of Keras (`load_model` and `predict`, one model after another) and of this
package (`load` and `predict`) are taken in turn. CPU seconds are those of all threads.
"""

import argparse
import json
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time

ROWS = 32


def main():
    """Prints a table of medians."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--models", default="lstm,cnn,resnet50,mobilenet")
    parser.add_argument("--replicas", default="1,2,4,8")
    parser.add_argument("--ensemble", type=int, default=1, help="copies of each model")
    parser.add_argument("--repetitions", type=int, default=3)
    parser.add_argument("--sample", nargs="+", help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.sample:
        print(json.dumps(sample(*options.sample)))
        return
    names = options.models.split(",")
    print("| model | replicas | Keras, s | ours, s | ratio | of CPU seconds |")
    print("| --- | --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            child("save", folder, name, str(options.ensemble))
        for name in names:
            for count in options.replicas.split(","):
                print(line(folder, name, count, options), flush=True)


def line(folder, name, count, options):
    """One line of the table, from samples taken in turn."""
    words = (folder, name, str(options.ensemble), count)
    keras, ours = zip(
        *(
            [child("keras", *words), child("ours", *words)]
            for _ in range(options.repetitions)
        ),
        strict=True,
    )
    medians = [
        [statistics.median(values) for values in zip(*samples, strict=True)]
        for samples in (keras, ours)
    ]
    (wall, cpu), (own_wall, own_cpu) = medians
    ratios = f"{own_wall / wall:.2f} | {own_cpu / cpu:.2f}"
    label = f"{options.ensemble} x {name}" if options.ensemble > 1 else name
    return f"| {label} | {count} | {wall:.2f} | {own_wall:.2f} | {ratios} |"


def child(*words):
    """What `sample` returns in a new process."""
    program = [sys.executable, __file__, "--sample", *words]
    done = subprocess.run(program, stdout=subprocess.PIPE, text=True, check=True)
    return json.loads(done.stdout.splitlines()[-1])


def sample(what, folder, name, number, count="1"):
    """Wall and CPU seconds of one first call; or saves the models."""
    paths = [pathlib.Path(folder, f"{name}{i}.keras") for i in range(int(number))]
    import keras
    import numpy as np

    import keras_mgpu_strategy as mgpu

    if what == "save":
        for path in paths:
            made(keras, name).save(path)
        small = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
        small.save(pathlib.Path(folder, "small.keras"))
        return None
    small = pathlib.Path(folder, "small.keras")
    devices = {"devices": "cpu:0", "replicas_per_device": int(count)}
    with mgpu.scope(**devices):
        warm = mgpu.load(small)
    warm.predict(np.zeros((64, 4), np.float32), verbose=0)
    keras.models.load_model(small).predict(np.zeros((64, 4), np.float32), verbose=0)
    shape = keras.models.load_model(paths[0]).input_shape[1:]
    rows = np.random.default_rng(0).random((ROWS * int(count), *shape), np.float32)
    began, used = time.perf_counter(), time.process_time()
    if what == "keras":
        for path in paths:
            keras.models.load_model(path).predict(rows, verbose=0)
    else:
        with mgpu.scope(**devices):
            predictor = mgpu.load(paths)
        predictor.predict(rows, ROWS * int(count), verbose=0)
    return time.perf_counter() - began, time.process_time() - used


def made(keras, name):
    """A model with weights of its own."""
    layers = keras.layers
    if name == "lstm":
        body = [keras.Input((20, 8)), layers.LSTM(64), layers.Dense(10)]
        return keras.Sequential(body)
    if name == "cnn":
        body = [keras.Input((32, 32, 3))]
        for width in (32, 64, 64):
            body += [layers.Conv2D(width, 3, activation="relu")]
            body += [layers.BatchNormalization(), layers.MaxPooling2D()]
        return keras.Sequential([*body, layers.Flatten(), layers.Dense(10)])
    if name == "resnet50":
        make, size = keras.applications.ResNet50, 64
    else:
        make, size = keras.applications.MobileNetV2, 96
    return make(weights=None, input_shape=(size, size, 3), classes=10)


if __name__ == "__main__":
    main()
