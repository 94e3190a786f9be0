"""Many models, one after another, in a new process, and what they leave behind."""

import gc
import json
import os
import pathlib
import threading
import weakref

import keras
import numpy as np

import keras_mgpu_strategy as mgpu

ROWS = np.random.default_rng(0).random((64, 20), np.float32)


def model():
    hidden = [keras.layers.Dense(64, "relu") for _ in range(5)]
    layers = [keras.Input((20,)), *hidden, keras.layers.Dense(1, "sigmoid")]
    return keras.Sequential(layers)


def by_keras(path):
    made = model()
    made.predict(ROWS, verbose=0)
    return made


def by_keras_load(path):
    made = keras.models.load_model(path)
    made.predict(ROWS, verbose=0)
    return made


def by_drop_in(path):
    made = model()
    for _ in range(2):
        mgpu.predict_proba(made, ROWS, verbose=0)
    return made


def by_predictor(path):
    made = mgpu.Predictor(model())
    made.predict(ROWS, verbose=0)
    return made


def by_load(path):
    made = mgpu.load(path)
    made.predict(ROWS, verbose=0)
    return made


def resident_bytes():
    pages = int(pathlib.Path("/proc/self/statm").read_text().split()[1])
    return pages * os.sysconf("SC_PAGE_SIZE")


def run(path, way, clears, num_models):
    """Writes to a file by how many MiB a model memory grew, and what is still alive."""
    folder = pathlib.Path(path)
    model().save(folder / "model.keras")
    make = globals()[way]

    def step():
        made = weakref.ref(make(folder / "model.keras"))
        if clears:
            keras.backend.clear_session()
        return made

    for _ in range(num_models // 3):  # the allocator's own
        step()
    gc.collect()
    before, made = resident_bytes(), [step() for _ in range(num_models)]
    grown = (resident_bytes() - before) / 2**20 / num_models
    gc.collect()
    alive = sum(one() is not None for one in made)
    found = {"mib": grown, "alive": alive, "threads": threading.active_count()}
    (folder / "found.json").write_text(json.dumps(found))
