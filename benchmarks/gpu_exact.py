"""Results on one GPU, compared with those of NumPy, Keras and the CPU."""

import itertools

import keras
import numpy as np
import tensorflow as tf
from gpu_models import IS_SIMULATED, chain, predictor_of, rows

layers = keras.layers


def exact(engine):
    """Rows compared with those of Keras' `predict` on the GPU with the same batch."""
    models = {
        "dense": chain((8,), layers.Dense(16, "relu"), layers.Dense(4)),
        "convolution": chain(
            (16, 16, 3), layers.Conv2D(8, 3), layers.BatchNormalization()
        ),
    }
    if not IS_SIMULATED:  # simulated GPUs have no cuDNN
        models["lstm"] = chain((12, 5), layers.LSTM(7))
    wrong, largest, equal = [], 0.0, True
    for name, model in models.items():
        model.compile(jit_compile=False)
        for jit in ("auto", False):
            predictor = predictor_of(model, engine, jit_compile=jit)
            for num_rows in (1, 7, 64, 1000):
                x = rows(num_rows, *model.input_shape[1:])
                expected = model.predict(x, batch_size=16, verbose=0)
                found = predictor.predict(x, 16, verbose=0)
                same = found.shape == expected.shape
                if not (same and np.allclose(found, expected, 1e-4, 1e-5)):
                    wrong.append(f"{name}, jit_compile={jit}, {num_rows} rows")
                else:
                    largest = max(largest, float(np.abs(found - expected).max()))
                    equal &= np.array_equal(found, expected)
    return {"wrong": wrong, "largest_difference": largest, "same_bits": bool(equal)}


def reduced(engine):
    """Outputs of layers, top-k, cast floats and metrics, next to NumPy and Keras."""
    model = chain((8,), layers.Dense(16, "relu", name="inner"), layers.Dense(100))
    loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile("sgd", loss, metrics=["accuracy"], jit_compile=False)
    x, wrong = rows(1003, 8), []
    x[::7] = x[0]  # equal rows: the same classes
    x[5, 3] = np.nan
    y = np.random.default_rng(1).integers(0, 100, len(x))
    with tf.device("CPU:0"):
        scores = np.array(model(x))
        inner = np.array(keras.Model(model.inputs, model.layers[1].output)(x))
    known = np.isfinite(scores[:, 0])
    for jit in (False,) if IS_SIMULATED else (False, True):
        predictor = predictor_of(model, engine, jit_compile=jit)
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
        found = predictor_of(model, engine, **options).predict(x, 64, verbose=0)
        if found.dtype != np.float16 or not np.allclose(
            found[known], inner[known], 2e-3, 1e-6
        ):
            wrong.append(f"outputs of a layer, cast, XLA {jit}")
        found = predictor.evaluate(x[known], y[known], 64, verbose=0)
        expected = model.evaluate(x[known], y[known], batch_size=64, verbose=0)
        if not np.allclose(found, expected, 1e-5, 1e-6):
            wrong.append(f"evaluate: {found}, expected {expected}, XLA {jit}")
    return {"wrong": wrong}


def ties(engine):
    """The best of many equal classes, compared with NumPy; NaN counts as infinity."""
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
        predictor = predictor_of(chain((4001,), same), engine, jit_compile=jit)
        for k in (1, 5, 100, 2000):  # several kernels
            best = predictor.predict_top_k(x, k, 16, verbose=0)
            if not np.array_equal(best["classes"], order[:, :k]):
                wrong.append(f"classes, {dtype}, k={k}, XLA {jit}")
            scores = np.take_along_axis(x, order[:, :k], -1)
            found = best["scores"].astype(np.float32)
            if not np.array_equal(found, scores, equal_nan=True):
                wrong.append(f"scores, {dtype}, k={k}, XLA {jit}")
    return {"wrong": wrong}
