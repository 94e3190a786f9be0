"""The memory that five models take on simulated GPUs, and runs short of memory.

Each run has its own GPUs; those that do not fit wait at the same time.
"""

import threading

import keras
import numpy as np
import tensorflow as tf
from common import chain, on_gpus, rows_of, split

_MEBIBYTES, _NUM_MODELS, _ROWS = 24, 5, 1_000


def all_of_them():
    """What each run did, by its name."""
    split(_MEBIBYTES)
    tf.config.threading.set_inter_op_parallelism_threads(16)  # to wait at the same time
    models = [_deep(seed) for seed in range(_NUM_MODELS)]
    peaks = {
        "one": _peak(0, models[0]),
        "mean": _peak(1, models),
        "mean_std": _peak(2, models, combine="mean_std"),
        "stack": _peak(3, models, combine="stack"),
    }
    runs = {"threads": _Run([4], "threads"), "mirrored": _Run([5, 6], "mirrored")}
    threads = [threading.Thread(target=run, args=(models,)) for run in runs.values()]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return {
        "peaks": peaks,
        "activations": _ROWS * 1600 * 4,
        "weights": sum(w.nbytes for m in models[1:] for w in m.get_weights()),
        "backed off": {name: run.outcome for name, run in runs.items()},
    }


def _deep(seed):
    """Takes a hundred times the memory of its inputs and outputs."""
    keras.utils.set_random_seed(seed)
    return chain(16, keras.layers.Dense(1600, "relu"), keras.layers.Dense(1))


def _peak(gpu, model, **options):
    """The most bytes on a GPU while a batch ran."""
    predictor = on_gpus(model, [f"gpu:{gpu}"], **options)
    rows, device = rows_of(_ROWS, 16), f"GPU:{gpu}"
    predictor.predict(rows, _ROWS, verbose=0)
    tf.config.experimental.reset_memory_stats(device)
    predictor.predict(rows, _ROWS, verbose=0)
    return tf.config.experimental.get_memory_info(device)["peak"]


class _Run:
    """A run of a batch that does not fit into a GPU's memory."""

    def __init__(self, gpus, engine):
        self._gpus, self._engine = gpus, engine

    def __call__(self, models):
        rows = rows_of(9_000 * len(self._gpus), 16)
        predictor = on_gpus(
            models, [f"gpu:{g}" for g in self._gpus], engine=self._engine
        )
        found = predictor.predict(rows, 4_000 * len(self._gpus), verbose=0)
        expected = np.mean([_numpy(model, rows) for model in models], 0)
        back_offs = predictor.report.back_offs
        self.outcome = {
            "exact": bool(np.allclose(found, expected, 1e-3, 1e-3)),
            "back_offs": [[b.failed, b.batch_size] for b in back_offs],
        }


def _numpy(model, rows):
    kernel, bias, head, offset = model.get_weights()
    return np.maximum(rows @ kernel + bias, 0) @ head + offset
