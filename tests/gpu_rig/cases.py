"""What is run on pretended GPUs: `python cases.py FUNCTION ARGUMENTS`, both as JSON."""

import gc
import json
import sys
import tempfile
import threading
import time
import weakref

import keras
import numpy as np
import rig
import tensorflow as tf

import keras_mgpu_strategy as mgpu

ENGINES = ("threads", "mirrored")


def _model(num_columns=8):
    inputs = keras.Input((num_columns,))
    hidden = keras.layers.Dense(16, "relu")(inputs)
    return keras.Model(inputs, keras.layers.Dense(4, "softmax")(hidden))


def _rows(num_rows, num_columns=8):
    return np.random.default_rng(1).random((num_rows, num_columns), np.float32)


def exact(num_gpus):
    """Names the cases whose results are not those of the model on the CPU."""
    with tf.device("CPU:0"):
        model = _model()
    wrong = []
    for engine in ENGINES:
        with mgpu.scope("gpu"):
            predictor = mgpu.Predictor(model, engine=engine)
        assert predictor.num_replicas == num_gpus
        for num_rows in (0, 1, num_gpus, 3 * num_gpus + 1, 1000):
            rows = _rows(num_rows)
            with tf.device("CPU:0"):
                expected = model(rows).numpy()
            for kind, x in {
                "array": rows,
                "generator": (rows[i : i + 7] for i in range(0, max(num_rows, 1), 7)),
                "dataset": tf.data.Dataset.from_tensor_slices(rows).batch(7),
            }.items():
                found = predictor.predict(x, 16 * num_gpus, verbose=0)
                is_same = np.shape(found) == expected.shape
                if not (is_same and np.allclose(found, expected, atol=1e-6)):
                    wrong.append(f"{engine}, {kind}, {num_rows} rows")
    return wrong


def bytes_in(num_gpus):
    """Bytes copied to the GPUs by one warm run, by engine, and those of its input."""
    rows, copied = _rows(64 * 40 * num_gpus, 256), {}
    for engine in ENGINES:
        with mgpu.scope("gpu"):
            predictor = mgpu.Predictor(_model(256), engine=engine)
        predictor.predict(rows, 64 * num_gpus, verbose=0)
        rig.reset(num_gpus)
        predictor.predict(rows, 64 * num_gpus, verbose=0)
        copied[engine] = sum(rig.counts(gpu)["bytes_in"] for gpu in range(num_gpus))
    return {"input": rows.nbytes, **copied}


def overlap():
    """By engine: of a GPU's seconds of computing, the share with a copy beside it."""
    rows, together = _rows(256 * 30, 784), {}
    for engine in ENGINES:
        with mgpu.scope("gpu"):
            predictor = mgpu.Predictor(_model(784), engine=engine)
        predictor.predict(rows, 256, verbose=0)
        size = 256 * 784 * 4
        rig.change(kernel_us=20_000, h2d_gbps=size / 0.02 / 1e9)
        rig.reset(1)
        predictor.predict(rows, 256, verbose=0)
        busy = rig.busy(0)
        together[engine] = busy["kernels+in"] / (busy["kernels+in"] + busy["kernels"])
        rig.change(kernel_us=0, h2d_gbps=0)
    return together


def files():
    """Whether a file has the rows that `predict` gives."""
    rows = _rows(500)
    with mgpu.scope("gpu"):
        predictor = mgpu.Predictor(_model())
    expected = predictor.predict(rows, 64, verbose=0)
    with tempfile.TemporaryDirectory() as folder:
        path = f"{folder}/scores.npy"
        predictor.predict_to(path, rows, 64, verbose=0)
        return bool(np.array_equal(np.load(path), expected))


def without_xla():
    """Whether "auto" runs where there is no XLA, and what True ends in."""
    with mgpu.scope("gpu"):
        mgpu.Predictor(_model()).predict(_rows(40), 8, verbose=0)
        forced = mgpu.Predictor(_model(), jit_compile=True)
    try:
        forced.predict(_rows(40), 8, verbose=0)
    except Exception as error:
        return str(error)
    return ""


def growth(num_calls):
    """Bytes that a GPU holds more after many calls than after a few, by engine."""
    grown = {}
    for engine in ENGINES:
        with mgpu.scope("gpu"):
            predictor = mgpu.Predictor(_model(), engine=engine)
        held = []
        for call in range(num_calls):
            predictor.predict(_rows(50 + call % 7), 32, verbose=0)
            held.append(tf.config.experimental.get_memory_info("GPU:0")["current"])
        grown[engine] = max(held[-10:]) - max(held[:10])
    return grown


def _split_gpu(mebibytes):
    """Makes one GPU of so much memory."""
    limit = tf.config.LogicalDeviceConfiguration(memory_limit=mebibytes)
    gpu = tf.config.list_physical_devices("GPU")[0]
    tf.config.set_logical_device_configuration(gpu, [limit])


def _ran(predictor, rows, batch_size):
    """Whether two runs are exact, the back-offs of each, and the seconds they took."""
    kernel, bias = map(np.asarray, predictor.model.get_weights())
    expected, told = rows @ kernel + bias, {"exact": True}
    for run in ("first", "second"):
        began = time.perf_counter()
        found = predictor.predict(rows, batch_size, verbose=0)
        told[f"{run}_seconds"] = time.perf_counter() - began
        told["exact"] &= bool(np.allclose(found, expected, rtol=1e-4, atol=1e-4))
        told[run] = [[b.failed, b.batch_size] for b in predictor.report.back_offs]
    return told


def large_inputs(engine):
    """Batches whose rows alone do not fit into the memory of a GPU."""
    _split_gpu(14)
    with mgpu.scope("gpu:0"):
        inputs = keras.Input((256,))
        model = keras.Model(inputs, keras.layers.Dense(1)(inputs))
        predictor = mgpu.Predictor(model, engine=engine)
    return _ran(predictor, _rows(40_000, 256), 20_000)


def large_outputs(engine):
    """Results of which a batch fits, and several batches do not."""
    _split_gpu(14)
    with mgpu.scope("gpu:0"):
        inputs = keras.Input((16,))
        model = keras.Model(inputs, keras.layers.Dense(16384)(inputs))
        predictor = mgpu.Predictor(model, engine=engine)
    return _ran(predictor, _rows(512, 16), 32)


def bounds(engine, into, compute, out):
    """What a run is bound by where the stages of a batch take so many milliseconds."""
    with mgpu.scope("gpu:0"):
        inputs = keras.Input((784,))
        model = keras.Model(inputs, keras.layers.Dense(784)(inputs))
        predictor = mgpu.Predictor(model, engine=engine)
    rows, gigabytes = _rows(64 * 40, 784), 64 * 784 * 4 / 1e9
    predictor.predict(rows, 64, verbose=0)
    with mgpu.scope("gpu:0"):
        predictor = mgpu.Predictor(predictor.model, engine=engine)
    rig.change(
        kernel_us=1e3 * compute,
        h2d_gbps=gigabytes / into * 1e3 if into else 0,
        d2h_gbps=gigabytes / out * 1e3 if out else 0,
    )
    for _ in range(2):
        predictor.predict(rows, 64, verbose=0)
    return [predictor.report.bound, predictor.report.shares]


def other_threads_run():
    """The longest that a thread of the program waited during a run, in seconds."""
    with mgpu.scope("gpu"):
        predictor = mgpu.Predictor(_model(784))
    rows = _rows(256 * 6, 784)
    predictor.predict(rows, 256, verbose=0)
    rig.change(kernel_us=300_000)
    gaps, is_over = [], threading.Event()

    def tick():
        last = time.perf_counter()
        while not is_over.wait(0.001):
            now = time.perf_counter()
            gaps.append(now - last)
            last = now

    thread = threading.Thread(target=tick)
    thread.start()
    predictor.predict(rows, 256, verbose=0)
    is_over.set()
    thread.join()
    return max(gaps)


def freed(engine):
    """Whether the rows of a run are gone after it, without the garbage collector."""
    with mgpu.scope("gpu"):
        predictor = mgpu.Predictor(_model(), engine=engine)

    class Rows(np.ndarray):
        """Can be referred to weakly."""

    predictor.predict(_rows(100), 8, verbose=0)
    gc.collect()
    gc.disable()
    rows = _rows(100).view(Rows)
    last = weakref.ref(rows)
    predictor.predict(rows, 8, verbose=0)
    del rows
    return last() is None


if __name__ == "__main__":
    print(json.dumps(globals()[sys.argv[1]](*json.loads(sys.argv[2]))))
