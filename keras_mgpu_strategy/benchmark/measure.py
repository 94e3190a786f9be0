"""Measures one model, or several together, at one batch on one number of replicas.

This is the program of a process of its own, since logical devices cannot change in one.
Samples of contenders are taken in turn, so that other load affects all alike.
"""

import dataclasses
import functools
import math
import sys
import time
from collections.abc import Callable, Iterable
from typing import Any

import numpy as np
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import machine, processes, timing
from keras_mgpu_strategy.benchmark.options import BenchmarkOptions
from keras_mgpu_strategy.benchmark.rows import build, known_ids, make_rows
from keras_mgpu_strategy.models import xla
from keras_mgpu_strategy.types import Nest, cut

_MOST_BYTES = 512 << 20
# A row in batches of other shapes differs in the last bits, which deep models add up.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5


class InTurn:
    """Models of Keras that predict one after another, and their mean."""

    def __init__(self, models: Iterable[Any]):
        self.models = list(models)

    def predict(self, x: Nest, **how: Any) -> Nest:
        """The mean of what they predict; of one, what it predicts."""

        def mean(*leaves: np.ndarray) -> np.ndarray:
            return functools.reduce(np.add, leaves) / len(leaves)

        first, *others = [model.predict(x, **how) for model in self.models]
        return tf.nest.map_structure(mean, first, *others) if others else first


def run(options: BenchmarkOptions) -> dict[str, Any]:
    """Measures and returns a JSON record; ours must not fail, contenders may."""
    names, (batch,), (count,) = options.models, options.batches, options.replicas
    kind = machine.configure(options.devices, count if options.shared else None)
    strategy = machine.make_strategy(kind, count, shared=options.shared)
    plain = InTurn(map(build, names))
    with strategy.scope():
        mirrored = InTurn(map(build, names))
    for one, other in zip(plain.models, mirrored.models, strict=True):
        other.set_weights(one.get_weights())
    mgpu.Predictor(mirrored.models)  # refuses models that do not go together
    device = strategy.extended.worker_devices[0]
    if "GPU" in device and not xla.works_on(device):
        for model in plain.models:
            model.jit_compile = False  # Keras would try, and fail
    narrowest = min(plain.models, key=lambda model: known_ids(model) or math.inf)
    rows_of = functools.partial(make_rows, narrowest, names[0])
    predict = functools.partial(plain.predict, batch_size=batch, verbose=0)
    rows = options.rows or find_rows(
        narrowest, rows_of, predict, options.seconds, options.row_multiple
    )
    x = rows_of(rows)
    return {
        "case": "one_device" if options.shared else "throughput",
        "model": ",".join(names),
        "replicas": count,
        "per_replica_batch": batch,
        "rows": rows,
        "devices": list(strategy.extended.worker_devices),
        **machine.describe(),
        "contenders": _measure(options, plain, mirrored, x, predict(x)),
    }


def find_rows(
    plain: Any,
    rows_of: Callable[[int], Nest],
    predict: Callable[[Nest], Nest],
    seconds: float,
    multiple: int,
) -> int:
    """Rows that keep Keras busy for these seconds, if they fit into memory."""
    row = rows_of(1)
    leaves = map(np.asarray, tf.nest.flatten([row, plain(row, training=False)]))
    most = max(_MOST_BYTES // sum(leaf.nbytes for leaf in leaves), 1)

    def time_of(count: int) -> float:
        x = rows_of(count)
        predict(cut(x, 0, multiple))
        return timing.seconds_of(lambda: predict(x))

    return timing.rows_for(seconds, time_of, multiple, most)


def _measure(
    options: BenchmarkOptions, plain: InTurn, mirrored: InTurn, x: Nest, reference: Nest
) -> dict[str, dict[str, Any]]:
    (batch,), (count,) = options.batches, options.replicas
    owners, calls, records = {}, {}, {}
    for name in options.contenders:
        size = batch if name == "keras" else batch and batch * count
        try:
            started = time.perf_counter()
            owner = owners[name] = _owner(name, plain, mirrored, count)
            call = functools.partial(owner.predict, x, batch_size=size, verbose=0)
            results = call()
            records[name] = {
                "first_call_seconds": time.perf_counter() - started,
                "largest_difference": largest_difference(results, reference),
            }
            calls[name] = functools.partial(timing.seconds_of, call)
        except Exception as error:
            if name.startswith("mgpu"):
                raise
            records[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    rows = len(tf.nest.flatten(x)[0])
    for name, seconds in timing.in_turn(calls, options.repetitions).items():
        records[name] |= {
            "seconds": seconds,
            "rows_per_second": [rows / sample for sample in seconds],
            "report": report_of(owners[name]),
        }
    return records


def _owner(name: str, plain: InTurn, mirrored: InTurn, num_replicas: int) -> Any:
    match name:
        case "keras":
            for model in plain.models:  # to time how long it takes
                model.make_predict_function(force=True)
            return plain
        case "keras_strategy":
            return mirrored
        case "ray":  # a process on a CPU has one thread, as a replica has here
            ray = mgpu.RayOptions(num_replicas, cpus_per_actor=1)
            return mgpu.Predictor(plain.models, engine="ray", ray=ray)
    engine: Any = name.removeprefix("mgpu_")
    return mgpu.Predictor(mirrored.models, engine=engine)


def report_of(owner: Any) -> dict[str, Any] | None:
    """JSON record of a Predictor's last run; None for a model of Keras."""
    report = owner.report if isinstance(owner, mgpu.Predictor) else None
    return report and dataclasses.asdict(report) | {"bottleneck": report.bottleneck}


def largest_difference(results: Nest, reference: Nest) -> float:
    """Compares results, NaNs included; ValueError if beyond rounding."""
    pairs = zip(tf.nest.flatten(results), tf.nest.flatten(reference), strict=True)
    return max(_difference(got, want) for got, want in pairs)


def _difference(got: np.ndarray, want: np.ndarray) -> float:
    if got.shape != want.shape:
        raise ValueError(f"results of shape {got.shape}, expected {want.shape}")
    apart = np.nan_to_num(np.abs(np.subtract(got, want, dtype=float)))
    largest = float(apart.max(initial=0))
    if not np.allclose(got, want, _RELATIVE, _ABSOLUTE, equal_nan=True):
        raise ValueError(f"results differ by up to {largest}")
    return largest


if __name__ == "__main__":
    processes.serve(lambda **fields: run(BenchmarkOptions(**fields)), *sys.argv[1:])
