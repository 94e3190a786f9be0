"""What simulated GPUs do at the same time when copies and computing take a while."""

import threading
import time

import keras
import rig
from common import ENGINES, chain, dense, on_gpus, rows_of

_BOUNDS = {
    "copies in": (20, 5, 0),
    "copies out": (0, 5, 20),
    "computing, some copies in": (4, 30, 0),
    "computing, some copies out": (0, 30, 4),
}


def all_of_them():
    """The results of all functions below, by engine."""
    return {
        engine: {
            "beside": beside(engine),
            "longest_wait": longest_wait(engine),
            "bounds": {name: bound(engine, *times) for name, times in _BOUNDS.items()},
        }
        for engine in ENGINES
    }


def _set(milliseconds, megabytes):
    """Sets how long a batch takes to be copied in, computed, and copied out."""
    into, compute, out = milliseconds
    rig.change(
        kernel_us=1e3 * compute,
        h2d_gbps=megabytes / into if into else 0,
        d2h_gbps=megabytes / out if out else 0,
    )


def beside(engine):
    """Shares of a GPU's computing time that overlap with copies in and with copies out.

    Runs long enough that a busy machine changes little.
    """
    rows, shares = rows_of(64 * 20, 784), {}
    predictor = on_gpus(chain(784, keras.layers.Dense(784)), "gpu:0", engine=engine)
    for name, times in {"in": (50, 50, 0), "out": (0, 50, 50)}.items():
        _set(times, 64 * 784 * 4 / 1e6)
        predictor.predict(rows[: 64 * 2], 64, verbose=0)
        rig.reset(1)
        predictor.predict(rows, 64, verbose=0)
        busy = rig.busy(0)
        together = busy[f"kernels+{name}"]
        shares[name] = together / (together + busy["kernels"])
        _set((0, 0, 0), 0)
    return shares


def bound(engine, *milliseconds):
    """What a run is bound by if the stages of a batch take this long."""
    rows = rows_of(64 * 20, 784)
    _set(milliseconds, 64 * 784 * 4 / 1e6)
    model = chain(784, keras.layers.Dense(784))
    predictor = on_gpus(model, "gpu:0", engine=engine)
    for _ in range(2):
        predictor.predict(rows, 64, verbose=0)
    _set((0, 0, 0), 0)
    return predictor.report.bound, predictor.report.shares


def longest_wait(engine):
    """The longest that a thread of the program waited during a run, in seconds."""
    predictor, rows = on_gpus(dense(784), engine=engine), rows_of(256 * 5, 784)
    predictor.predict(rows, 256, verbose=0)
    rig.change(kernel_us=600_000)
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
    rig.change(kernel_us=0)
    return max(gaps)
