"""Batches that do not fit into the memory of simulated GPUs of 14 MiB each.

TensorFlow waits ten seconds before an allocation fails, so the runs wait at the
same time, each on its own GPUs.
"""

import threading

import keras
import numpy as np
import rig
import tensorflow as tf
from common import chain, on_gpus, rows_of, split

_MEBIBYTES = 14


def all_of_them():
    """What each run did, by its name, and the GPUs that it had."""
    split(_MEBIBYTES)
    tf.config.threading.set_inter_op_parallelism_threads(16)  # to wait at the same time
    runs = {
        "inputs, threads": _Run([0], "threads", _wide(1), rows_of(40_000, 256), 20_000),
        "inputs, mirrored": _Run(
            [1, 2], "mirrored", _wide(1), rows_of(80_000, 256), 40_000
        ),
        "activations, threads": _Run(
            [3], "threads", _deep(), rows_of(9_000, 16), 3_000
        ),
        "activations, mirrored": _Run(
            [4, 5], "mirrored", _deep(), rows_of(18_000, 16), 6_000
        ),
        "outputs, threads": _Run(
            [6], "threads", _wide(16384, 16), rows_of(512, 16), 32
        ),
        "outputs, mirrored": _Run(
            [7], "mirrored", _wide(16384, 16), rows_of(512, 16), 32
        ),
    }
    threads = [threading.Thread(target=run) for run in runs.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {name: run.outcome for name, run in runs.items()}


def _wide(units, num_columns=256):
    return chain(num_columns, keras.layers.Dense(units))


def _deep():
    """Takes a hundred times the memory of its inputs and outputs."""
    return chain(16, keras.layers.Dense(1600, "relu"), keras.layers.Dense(1))


class _Run:
    """Two runs of a model on some GPUs."""

    def __init__(self, gpus, engine, model, rows, batch_size):
        self._gpus, self._rows, self._batch_size = gpus, rows, batch_size
        devices = [f"gpu:{gpu}" for gpu in gpus]
        self._predictor = on_gpus(model, devices, engine=engine)
        self.outcome = {"gpus": gpus, "input": rows.nbytes}

    def __call__(self):
        expected = self._expected()
        for run in ("first", "second"):
            for gpu in self._gpus:
                rig.reset_one(gpu)
            found = self._predictor.predict(self._rows, self._batch_size, verbose=0)
            report = self._predictor.report
            self.outcome[run] = {
                "exact": bool(np.allclose(found, expected, 1e-3, 1e-3)),
                "back_offs": [[b.failed, b.batch_size] for b in report.back_offs],
                "batch": report.batch_size,
                "bytes_in": [rig.counts(gpu)["bytes_in"] for gpu in self._gpus],
            }

    def _expected(self):
        *hidden, (kernel, bias) = np.reshape(
            np.array(self._predictor.model.get_weights(), object), (-1, 2)
        )
        rows = self._rows
        for weights, offsets in hidden:
            rows = np.maximum(rows @ weights + offsets, 0)
        return rows @ kernel + bias
