"""A model whose rows can harm the process that runs them."""

import os
import signal
import time

import keras
import numpy as np
import tensorflow as tf

KILLS, FAILS, TAKES_MEMORY, SLEEPS = 1_000_001, 1_000_002, 1_000_003, 1_000_004
"""Values of rows."""


class Acting(keras.layers.Layer):
    """Passes rows on, and does what their values say."""

    def call(self, inputs):
        outputs = tf.py_function(_act, [inputs], inputs.dtype)
        outputs.set_shape(inputs.shape)
        return outputs


def _act(inputs):
    values = set(inputs.numpy().ravel().tolist())
    if KILLS in values:
        os.kill(os.getpid(), signal.SIGKILL)
    if FAILS in values:
        raise ValueError("on purpose")
    if TAKES_MEMORY in values and len(inputs) > 2:
        raise MemoryError(f"{len(inputs)} rows")  # becomes ResourceExhausted
    if SLEEPS in values:
        time.sleep(0.1)
    return inputs


def acting_model():
    """2 x + 1, exact in float32 for row numbers."""
    inputs = keras.Input((2,), name="x")
    return keras.Model(inputs, keras.layers.Rescaling(2.0, 1.0)(Acting()(inputs)))


def numbered(num_rows, **values):
    """Row i holds i, except those that are given another value: `r7=KILLS`."""
    rows = np.repeat(np.arange(num_rows, dtype=np.float32)[:, np.newaxis], 2, axis=1)
    for name, value in values.items():
        rows[int(name[1:])] = value
    return rows


def pids_of(predictor):
    return [int(device.split("/")[1]) for device in predictor.devices]


def printed(capfd):
    """What was printed, except Ray's line about the machine's few cores."""
    lines = "".join(capfd.readouterr()).splitlines(keepends=True)
    return "".join(line for line in lines if "PYTHON worker processes" not in line)
