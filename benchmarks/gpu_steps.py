"""What `gpu_session.py` runs in processes: `python gpu_steps.py FUNCTION ARGUMENTS`.

The last line of the output is the result as JSON, in which `wrong` lists what was
wrong. Sizes are small if `quick` is true.
"""

import json
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf
from gpu_exact import exact, reduced, ties
from gpu_models import IS_SIMULATED, chain, predictor_of, rows
from gpu_profile import BUSY, profiled

import keras_mgpu_strategy as mgpu

layers = keras.layers


def card():
    """The GPU: its name, its memory limit, and whether XLA works on it."""
    from tensorflow.python.client import device_lib  # the only way to ask for the limit

    from keras_mgpu_strategy.models import xla

    (gpu, *_) = tf.config.list_physical_devices("GPU")
    details = tf.config.experimental.get_device_details(gpu)
    limits = [d.memory_limit for d in device_lib.list_local_devices()]
    return {
        "name": details.get("device_name"),
        "compute_capability": details.get("compute_capability"),
        "memory_limit": max(limits[1:]),
        "tensorflow": tf.__version__,
        "keras": keras.__version__,
        "xla_works": xla.works_on("GPU:0"),
    }


def overlap(engine, quick):
    """The share of a run's time in copies and kernels, alone and at the same time."""
    batch, count, width = (256, 20, 10) if quick or IS_SIMULATED else (8192, 40, 4096)
    model = chain((784,), layers.Dense(width, "relu"), layers.Dense(10))
    predictor, x = predictor_of(model, engine), rows(batch * count, 784)
    predictor.predict(x, batch, verbose=0)
    if IS_SIMULATED:  # copies that take as long as computing
        import rig

        rig.change(kernel_us=10_000, h2d_gbps=batch * 784 * 4 / 0.02 / 1e9)
    predictor.predict(x, batch, verbose=0)
    began = time.perf_counter()
    predictor.predict(x, batch, verbose=0)
    seconds = time.perf_counter() - began
    with tempfile.TemporaryDirectory() as folder:
        if IS_SIMULATED:
            rig.reset(1)
        with tf.profiler.experimental.Profile(folder):
            predictor.predict(x, batch, verbose=0)
        busy = rig.busy(0) if IS_SIMULATED else profiled(folder)
    engines = {
        part: sum(busy[name] for name in BUSY if part in name or name == "all")
        for part in ("in", "kernels", "out")
    }
    shorter = min(engines["in"], engines["kernels"])
    return {
        "wrong": [] if shorter else ["no copies or no kernels were seen"],
        "seconds": seconds,
        "of_the_longest": max(engines.values()) / seconds,
        "copies_in_beside_kernels": (busy["kernels+in"] + busy["all"]) / (shorter or 1),
        "busy": busy,
        "report": predictor.report.bottleneck,
    }


def bus(engine, quick):
    """Seconds for all scores of 4,001 classes, and for the best five of each row."""
    num_rows = 8192 if quick or IS_SIMULATED else 131_072
    model = chain((64,), layers.Dense(4001))
    predictor, x = predictor_of(model, engine), rows(num_rows, 64)
    methods = {
        "predict": lambda: predictor.predict(x, 1024, verbose=0),
        "top_k": lambda: predictor.predict_top_k(x, 5, 1024, verbose=0),
    }
    result = {"wrong": [], "rows": num_rows}
    for name, run in methods.items():
        run()
        began = time.perf_counter()
        run()
        result[f"{name}_seconds"] = time.perf_counter() - began
        result[f"{name}_bytes_a_row"] = predictor.report.bytes_out / num_rows
    return result


def compiled(engine, quick):
    """The ways to compile: whether results agree, their rows per second, and "auto"."""
    small = quick or IS_SIMULATED
    batch, count = (64, 20) if small else (512, 200)
    models = {
        "dense": chain((784,), layers.Dense(512, "relu"), layers.Dense(10)),
        "convolution": chain(
            (32, 32, 3),
            layers.Conv2D(32, 3),
            layers.BatchNormalization(),
            layers.GlobalAveragePooling2D(),
        ),
    }
    if not IS_SIMULATED:  # simulated GPUs have neither cuDNN nor XLA
        models["lstm"] = chain((20, 8), layers.LSTM(64))
    kinds = ("plain", "frozen") if IS_SIMULATED else ("plain", "frozen", "xla")
    result = {"wrong": []}
    for name, model in models.items():
        x = rows(batch * count, *model.input_shape[1:])
        expected = None
        for kind in kinds:
            predictor = predictor_of(model, engine, compile=kind)
            predictor.predict(x, batch, verbose=0)
            began = time.perf_counter()
            found = predictor.predict(x, batch, verbose=0)
            result[f"{name} {kind}"] = len(x) / (time.perf_counter() - began)
            expected = found if expected is None else expected
            if not np.allclose(found, expected, 1e-4, 1e-4):
                result["wrong"].append(f"{name}, {kind}")
        if not small:
            result[f"{name} auto"] = _searched(model, engine, x, batch)
    return result


def _searched(model, engine, x, batch):
    """What a run of about ten seconds finds."""
    predictor = predictor_of(model, engine)
    began = time.perf_counter()
    predictor.predict(x, batch, verbose=0)
    times = max(int(10 / (time.perf_counter() - began)), 1)
    for _ in predictor.predict_iter(np.concatenate([x] * times), batch):
        pass
    return [predictor.report.step, predictor.report.tried_steps]


def padded(engine, quick):
    """Rows of unequal length, compared with the same rows padded to the longest."""
    num_rows = 2_000 if quick or IS_SIMULATED else 100_000
    random = np.random.default_rng(0)
    texts = [
        random.integers(1, 1000, length)
        for length in np.minimum(random.zipf(1.3, num_rows), 256)
    ]
    pooled = layers.GlobalAveragePooling1D() if IS_SIMULATED else layers.LSTM(64)
    embedding = layers.Embedding(1000, 32, mask_zero=True)
    predictor = predictor_of(chain((None,), embedding, pooled, layers.Dense(4)), engine)
    longest = keras.utils.pad_sequences(texts, padding="post")
    runs = {
        "longest": lambda: predictor.predict(longest, 256, verbose=0),
        "pad": lambda: predictor.predict(texts, pad=mgpu.Pad(), verbose=0),
    }
    result, outputs = {"wrong": [], "rows": num_rows}, []
    for name, run in runs.items():
        run()
        began = time.perf_counter()
        outputs.append(run())
        result[f"{name}_seconds"] = time.perf_counter() - began
    result["padding"] = predictor.report.padding
    if not np.allclose(*outputs, 1e-4, 1e-4):
        result["wrong"].append("rows")
    return result


def memory(kind, engine, quick):
    """A batch that cannot fit: what was run again, and whether the rows are right.

    Args:
        kind: What does not fit: `rows` or `results` into a part of the GPU, or
            `activations` into the whole GPU.
        engine: As for the Predictor.
        quick: Whether that part is small.
    """
    limit = (
        card()["memory_limit"] if kind == "activations" else 1 << (26 if quick else 31)
    )
    if kind != "activations":
        part = tf.config.LogicalDeviceConfiguration(memory_limit=limit >> 20)
        (gpu, *_) = tf.config.list_physical_devices("GPU")
        tf.config.set_logical_device_configuration(gpu, [part])
    columns, *parts, batch, total = {
        "rows": (4096, layers.Dense(1), limit * 3 // 2 // 16384, 2),
        "results": (16, layers.Dense(4096), limit // 10 // 16384, 30),
        "activations": (
            16,
            layers.Dense(16384, "relu"),
            layers.Dense(1),
            limit * 3 // 2 // 65536,
            1,
        ),
    }[kind]
    x = rows(batch * total, columns)
    predictor = predictor_of(chain((columns,), *parts), engine)
    result = {"wrong": [], "batch": batch, "rows": len(x), "memory": limit}
    outputs = []
    for run in ("first", "second"):
        began = time.perf_counter()
        outputs.append(predictor.predict(x, batch, verbose=0))
        result[f"{run}_seconds"] = time.perf_counter() - began
        result[f"{run}_back_offs"] = [
            [each.failed, each.batch_size] for each in predictor.report.back_offs
        ]
    result["peak"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    picked = np.linspace(0, len(x) - 1, 1000).astype(int)
    expected = x[picked]
    for part in parts:
        kernel, bias = (np.asarray(each) for each in part.get_weights())
        expected = expected @ kernel + bias
        if part.activation is keras.activations.relu:
            expected = np.maximum(expected, 0)
    if not np.allclose(outputs[0][picked], expected, 1e-3, 1e-3):
        result["wrong"].append("rows")
    if not np.allclose(*outputs, 1e-3, 1e-3) or len(outputs[0]) != len(x):
        result["wrong"].append("the second run")
    if len(result["first_back_offs"]) > 2 or result["second_back_offs"]:
        result["wrong"].append("too many batches did not fit")
    return result


STEPS = (card, exact, reduced, ties, overlap, bus, compiled, padded, memory)

if __name__ == "__main__":
    # Results are compared with those of the CPU, which does not round to 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    step = {each.__name__: each for each in STEPS}[sys.argv[1]]
    print(json.dumps(step(*json.loads(sys.argv[2]))))
