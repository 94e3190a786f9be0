"""What notebooks of tests run: a small model, and rows that take their time."""

import time

import numpy as np

import keras_mgpu_strategy as mgpu
from tests import helpers


class Paced:
    """Row i holds i in both columns; read at a fixed pace, as from a slow disk."""

    dtype = np.dtype(np.float32)

    def __init__(self, num_rows, rows_per_second):
        self.shape = (num_rows, 2)
        self._seconds = 1 / rows_per_second

    def __getitem__(self, rows):
        first, stop, _ = rows.indices(len(self))
        time.sleep((stop - first) * self._seconds)
        return helpers.numbered_rows(stop - first) + np.float32(first)

    def __len__(self):
        return self.shape[0]


def failing(num_seconds):
    """Batches for so many seconds, and then an error."""
    end = time.monotonic() + num_seconds
    for batch in helpers.numbered_batches(10):
        if time.monotonic() > end:
            raise OSError("the disk is gone")
        time.sleep(0.01)
        yield batch


def predictor():
    """2 x + 1 on one replica, compiled for metrics, with its first call behind it."""
    model = helpers.doubling_model()
    model.compile(loss="mse")
    made = mgpu.Predictor(model)
    made.predict(helpers.numbered_rows(8), batch_size=8, verbose=0)
    return made
