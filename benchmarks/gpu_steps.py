"""What `gpu_session.py` runs in processes: `python gpu_steps.py FUNCTION ARGUMENTS`.

The last line of the output is the result as JSON; whatever is under `wrong` was not as
it must be. Sizes are small if `quick` is true.
"""

import itertools
import json
import os
import pathlib
import sys
import tempfile
import time

import keras
import numpy as np
import tensorflow as tf

import keras_mgpu_strategy as mgpu

IS_SIMULATED = "TF_PLUGGABLE_DEVICE_LIBRARY_PATH" in os.environ
BUSY = ("none", "kernels", "in", "kernels+in", "out", "kernels+out", "in+out", "all")
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


def _chain(shape, *parts):
    inputs = outputs = keras.Input(shape)
    for part in parts:
        outputs = part(outputs)
    return keras.Model(inputs, outputs)


def _rows(num_rows, *shape):
    return np.random.default_rng(0).random((num_rows, *shape), np.float32)


def _predictor(model, engine, **options):
    with mgpu.scope("gpu:0"):
        return mgpu.Predictor(model, engine=engine, **options)


def exact(engine):
    """Rows compared with those of Keras' `predict` on the GPU with the same batch."""
    models = {
        "dense": _chain((8,), layers.Dense(16, "relu"), layers.Dense(4)),
        "convolution": _chain(
            (16, 16, 3), layers.Conv2D(8, 3), layers.BatchNormalization()
        ),
    }
    if not IS_SIMULATED:  # simulated GPUs have no cuDNN
        models["lstm"] = _chain((12, 5), layers.LSTM(7))
    wrong, largest, equal = [], 0.0, True
    for name, model in models.items():
        model.compile(jit_compile=False)
        for jit in ("auto", False):
            predictor = _predictor(model, engine, jit_compile=jit)
            for num_rows in (1, 7, 64, 1000):
                x = _rows(num_rows, *model.input_shape[1:])
                expected = model.predict(x, batch_size=16, verbose=0)
                found = predictor.predict(x, 16, verbose=0)
                same = found.shape == expected.shape
                if not (same and np.allclose(found, expected, 1e-4, 1e-5)):
                    wrong.append(f"{name}, jit_compile={jit}, {num_rows} rows")
                else:
                    largest = max(largest, float(np.abs(found - expected).max()))
                    equal &= np.array_equal(found, expected)
    return {"wrong": wrong, "largest_difference": largest, "same_bits": bool(equal)}


def overlap(engine, quick):
    """The share of a run's time in copies and kernels, alone and at the same time."""
    batch, count, width = (256, 20, 10) if quick or IS_SIMULATED else (8192, 40, 4096)
    model = _chain((784,), layers.Dense(width, "relu"), layers.Dense(10))
    predictor, x = _predictor(model, engine), _rows(batch * count, 784)
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


def profiled(folder):
    """Seconds by what the first GPU did at the same time, from a profile of TensorFlow.

    A GPU is a plane of the profile with a line for each of its streams.
    """
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    intervals = []
    for path in pathlib.Path(folder).rglob("*.xplane.pb"):
        space = xplane_pb2.XSpace.FromString(path.read_bytes())
        for plane in space.planes:
            if plane.name == "/device:GPU:0":
                intervals += _intervals(plane)
    return busy_of(intervals)


def _intervals(plane):
    for line in plane.lines:
        for event in line.events if line.name.startswith("Stream") else ():
            name = plane.event_metadata[event.metadata_id].name
            if "Memcpy" in name and "H2D" not in name and "D2H" not in name:
                continue  # within the device
            engine = 1 if "H2D" in name else 2 if "D2H" in name else 0
            begin = line.timestamp_ns * 1e-9 + event.offset_ps * 1e-12
            yield begin, begin + event.duration_ps * 1e-12, engine


def reduced(engine):
    """Outputs of layers, top-k, cast floats and metrics, next to NumPy and Keras."""
    model = _chain((8,), layers.Dense(16, "relu", name="inner"), layers.Dense(100))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    x, wrong = _rows(1003, 8), []
    x[::7] = x[0]  # equal rows: the same classes
    x[5, 3] = np.nan
    y = np.random.default_rng(1).integers(0, 100, len(x))
    with tf.device("CPU:0"):
        scores = np.array(model(x))
        inner = np.array(keras.Model(model.inputs, model.layers[1].output)(x))
    known = np.isfinite(scores[:, 0])
    for jit in (False,) if IS_SIMULATED else (False, True):
        predictor = _predictor(model, engine, jit_compile=jit)
        whole = predictor.predict(x, 64, verbose=0)
        best = predictor.predict_top_k(x, 5, 64, verbose=0)
        order = np.argsort(-whole, axis=-1, kind="stable")[:, :5]
        if not np.array_equal(best["classes"][known], order[known]):
            wrong.append(f"classes, XLA {jit}")
        if not np.array_equal(best["classes"][~known], [[0, 1, 2, 3, 4]]):
            wrong.append(f"classes of a row of NaN, XLA {jit}")
        ranked = np.take_along_axis(whole, order, -1)
        if not np.array_equal(best["scores"][known], ranked[known]):
            wrong.append(f"scores, XLA {jit}")
        options = {"jit_compile": jit, "outputs": "inner", "output_dtype": "float16"}
        found = _predictor(model, engine, **options).predict(x, 64, verbose=0)
        if found.dtype != np.float16 or not np.allclose(
            found[known], inner[known], 2e-3, 1e-6
        ):
            wrong.append(f"outputs of a layer, cast, XLA {jit}")
        told = predictor.evaluate(x[known], y[known], 64, verbose=0)
        expected = model.evaluate(x[known], y[known], batch_size=64, verbose=0)
        if not np.allclose(told, expected, 1e-5, 1e-6):
            wrong.append(f"evaluate: {told}, expected {expected}, XLA {jit}")
    return {"wrong": wrong}


def ties(engine):
    """The best classes where many are equal, next to NumPy; NaN counts as infinity."""
    random, wrong = np.random.default_rng(0), []
    x = random.integers(-3, 3, (64, 4001)).astype(np.float32)
    x[::4] *= random.choice([0.0, -0.0, 1.0], 4001)  # zeros of both signs
    x[1::4] = np.where(random.random(4001) < 0.3, np.nan, x[1::4])
    x[2::4] = np.where(random.random(4001) < 0.3, np.inf, x[2::4])
    ranked = np.where(np.isnan(x), np.inf, x)
    order = np.argsort(-ranked, axis=-1, kind="stable")
    for jit, dtype in itertools.product(
        (False,) if IS_SIMULATED else (False, True), ("float32", "float16", "bfloat16")
    ):
        same = layers.Lambda(lambda x, dtype=dtype: tf.cast(x, dtype))
        predictor = _predictor(_chain((4001,), same), engine, jit_compile=jit)
        for k in (1, 5, 100, 2000):  # several kernels
            best = predictor.predict_top_k(x, k, 16, verbose=0)
            if not np.array_equal(best["classes"], order[:, :k]):
                wrong.append(f"classes, {dtype}, k={k}, XLA {jit}")
            scores = np.take_along_axis(x, order[:, :k], -1)
            found = best["scores"].astype(np.float32)
            if not np.array_equal(found, scores, equal_nan=True):
                wrong.append(f"scores, {dtype}, k={k}, XLA {jit}")
    return {"wrong": wrong}


def bus(engine, quick):
    """Seconds for all scores of 4,001 classes, and for the best five of each row."""
    num_rows = 8192 if quick or IS_SIMULATED else 131_072
    model = _chain((64,), layers.Dense(4001))
    predictor, x = _predictor(model, engine), _rows(num_rows, 64)
    methods = {
        "predict": lambda: predictor.predict(x, 1024, verbose=0),
        "top_k": lambda: predictor.predict_top_k(x, 5, 1024, verbose=0),
    }
    told = {"wrong": [], "rows": num_rows}
    for name, run in methods.items():
        run()
        began = time.perf_counter()
        run()
        told[f"{name}_seconds"] = time.perf_counter() - began
        told[f"{name}_bytes_a_row"] = predictor.report.bytes_out / num_rows
    return told


def busy_of(intervals):
    """Seconds by what ran at the same time, from (begin, end, index of the engine)."""
    changes = sorted(
        change
        for begin, end, engine in intervals
        for change in ((begin, engine, 1), (end, engine, -1))
    )
    running, seconds = [0, 0, 0], dict.fromkeys(BUSY, 0.0)
    for (now, engine, by), (later, _, _) in itertools.pairwise(changes):
        running[engine] += by
        mask = sum((count > 0) << index for index, count in enumerate(running))
        seconds[BUSY[mask]] += later - now
    return seconds


def memory(kind, engine, quick):
    """A batch that cannot fit: what was rerun, and whether the rows are right.

    Args:
        kind: What does not fit: `rows` or `results`, into a part of the GPU, or
            `activations`, into the whole of it.
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
    x = _rows(batch * total, columns)
    predictor = _predictor(_chain((columns,), *parts), engine)
    told = {"wrong": [], "batch": batch, "rows": len(x), "memory": limit}
    results = []
    for run in ("first", "second"):
        began = time.perf_counter()
        results.append(predictor.predict(x, batch, verbose=0))
        told[f"{run}_seconds"] = time.perf_counter() - began
        told[f"{run}_back_offs"] = [
            [each.failed, each.batch_size] for each in predictor.report.back_offs
        ]
    told["peak"] = tf.config.experimental.get_memory_info("GPU:0")["peak"]
    picked = np.linspace(0, len(x) - 1, 1000).astype(int)
    expected = x[picked]
    for part in parts:
        kernel, bias = (np.asarray(each) for each in part.get_weights())
        expected = expected @ kernel + bias
        if part.activation is keras.activations.relu:
            expected = np.maximum(expected, 0)
    if not np.allclose(results[0][picked], expected, 1e-3, 1e-3):
        told["wrong"].append("rows")
    if not np.allclose(*results, 1e-3, 1e-3) or len(results[0]) != len(x):
        told["wrong"].append("the second run")
    if len(told["first_back_offs"]) > 2 or told["second_back_offs"]:
        told["wrong"].append("too many batches did not fit")
    return told


if __name__ == "__main__":
    # Results are compared with those of the CPU, which does not round to 10 bits.
    tf.config.experimental.enable_tensor_float_32_execution(False)
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
