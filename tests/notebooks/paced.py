"""What the notebooks of tests run: a small model, and rows that are read slowly."""

import time

import keras
import numpy as np

import keras_mgpu_strategy as mgpu
from tests import helpers

# Wide rows, so that chunks of at most 4 MiB are read in a fraction of a second.
NUM_COLUMNS = 1024


class Paced:
    """Row i holds i in every column; read at a fixed pace, as from a slow disk."""

    dtype = np.dtype(np.float32)

    def __init__(self, num_rows, rows_per_second):
        self.shape = (num_rows, NUM_COLUMNS)
        self._seconds = 1 / rows_per_second

    def __getitem__(self, rows):
        first, stop, _ = rows.indices(len(self))
        time.sleep((stop - first) * self._seconds)
        return rows_of(stop - first) + np.float32(first)

    def __len__(self):
        return self.shape[0]


def failing(num_seconds):
    """Batches for some seconds, and then an error."""
    end = time.monotonic() + num_seconds
    for batch in helpers.numbered_batches(10, NUM_COLUMNS):
        if time.monotonic() > end:
            raise OSError("the disk is gone")
        time.sleep(0.01)
        yield batch


def rows_of(num_rows):
    """Row i holds i in every column."""
    return helpers.numbered_rows(num_rows, NUM_COLUMNS)


def results_of(num_rows):
    """The predictor's results for them."""
    return 2 * helpers.numbered_rows(num_rows) + 1


def predictor():
    """Doubles the first two columns and adds 1; compiled, and already called once."""
    inputs = keras.Input((NUM_COLUMNS,))
    model = keras.Model(inputs, keras.layers.Rescaling(2.0, 1.0)(inputs[:, :2]))
    model.compile(loss="mse")
    made = mgpu.Predictor(model)
    made.predict(rows_of(8), batch_size=8, verbose=0)
    return made
