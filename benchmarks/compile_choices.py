"""Times one step of a model: plain, frozen (variables as constants), and with XLA.

    python benchmarks/compile_choices.py MODEL

on the first GPU, or on the CPU without one. MODEL is `mlp`, `cnn`, `lstm` or
`transformer`. The rows are on the device before the clock runs. Prints a line of JSON
for each batch: the seconds of the first two calls, the milliseconds of a later one, and
the largest difference from the plain step.
"""

import json
import sys
import time

import keras
import numpy as np
import tensorflow as tf
from gpu_chunks import cnn, mlp
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,
)

layers = keras.layers


def lstm():
    """20 steps of 8 features."""
    return keras.Sequential([keras.Input((20, 8)), layers.LSTM(64), layers.Dense(1)])


def transformer():
    """Four blocks over 128 tokens of 256 features."""
    inputs = outputs = keras.Input((128, 256))
    for _ in range(4):
        seen = layers.MultiHeadAttention(8, 32)(outputs, outputs)
        outputs = layers.LayerNormalization()(outputs + seen)
        hidden = layers.Dense(256)(layers.Dense(1024, "gelu")(outputs))
        outputs = layers.LayerNormalization()(outputs + hidden)
    pooled = layers.GlobalAveragePooling1D()(outputs)
    return keras.Model(inputs, layers.Dense(10, activation="softmax")(pooled))


MODELS = {
    "mlp": (mlp, [1024, 16384]),
    "cnn": (cnn, [64, 512]),
    "lstm": (lstm, [64, 1024]),
    "transformer": (transformer, [32]),
}


def steps(model, spec):
    """The ways to compile, by name; each makes a function when it is called."""

    def traced(jit_compile):
        step = tf.function(lambda x: model(x, training=False), jit_compile=jit_compile)
        return step.get_concrete_function(spec)

    def frozen():
        plain = traced(False)
        return convert_variables_to_constants_v2(plain, lower_control_flow=False)

    def frozen_by_xla():
        step = frozen()
        both = tf.function(lambda x: step(x), jit_compile=True, input_signature=[spec])
        return both.get_concrete_function()

    return {
        "plain": lambda: traced(False),
        "frozen": frozen,
        "xla": lambda: traced(True),
        "frozen by xla": frozen_by_xla,
    }


def values(outputs):
    """The first output on the host."""
    return np.asarray(tf.nest.flatten(outputs)[0])


def seconds_of(step, x):
    """Seconds of a call, over at least 0.15 s."""
    count, began = 0, time.perf_counter()
    while time.perf_counter() - began < 0.15:
        for _ in range(5):
            outputs = step(x)
        values(outputs)
        count += 5
    return (time.perf_counter() - began) / count


def compared(model, batch):
    """What each way takes for a batch."""
    spec = tf.TensorSpec((batch, *model.input_shape[1:]), tf.float32)
    x = tf.identity(np.random.default_rng(0).random(spec.shape, np.float32))
    found, made, expected = {"batch": batch}, {}, None
    for name, make in steps(model, spec).items():
        began = time.perf_counter()
        try:
            step = make()
            values(step(x))
            results = values(step(x))
        except Exception as error:
            found[name] = type(error).__name__
            continue
        expected = results if expected is None else expected
        difference = float(np.abs(results - expected).max())
        first = round(time.perf_counter() - began, 2)
        found[name] = {"first_seconds": first, "difference": difference}
        made[name] = step
    best = {
        name: min(seconds_of(step, x) for _ in range(5)) for name, step in made.items()
    }
    for name, seconds in best.items():
        found[name]["ms"] = round(1000 * seconds, 3)
    return found


def main():
    """Prints the lines."""
    make, batches = MODELS[sys.argv[1]]
    device = "GPU:0" if tf.config.list_physical_devices("GPU") else "CPU:0"
    with tf.device(device):
        model = make()
        for batch in batches:
            print(json.dumps(compared(model, batch)), flush=True)


if __name__ == "__main__":
    main()
