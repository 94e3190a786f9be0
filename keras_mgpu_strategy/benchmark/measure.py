"""Measures one model, or several together, at one batch on one number of replicas.

This is the program of a process of its own, since logical devices cannot change in one.
Samples of contenders are taken in turn, so that other load affects all alike.
"""

import dataclasses
import functools
import gc
import math
import sys
import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import machine, processes, runtimes
from keras_mgpu_strategy.benchmark.contenders import InTurn, made, settle
from keras_mgpu_strategy.benchmark.options import (
    ENGINES,
    FEW,
    RUNTIMES,
    STEPS,
    BenchmarkOptions,
)
from keras_mgpu_strategy.benchmark.rows import build, known_ids, make_rows
from keras_mgpu_strategy.types import Nest, cut

_MOST_BYTES = 512 << 20
# A row in batches of other shapes differs in the last bits, which deep models add up.
_RELATIVE, _ABSOLUTE = 1e-3, 1e-5
_OURS = (*ENGINES, "mgpu_plain")
"""These must not fail."""
_UNKNOWN = (*STEPS[1:], *RUNTIMES)
"""These may be many times slower than Keras."""
_PATIENCE = 4
_FEW_BATCHES = 4


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
    machine.avoid_failing_xla(plain.models, strategy)
    narrowest = min(plain.models, key=lambda model: known_ids(model) or math.inf)
    rows_of = functools.partial(make_rows, narrowest, names[0])
    predict = functools.partial(plain.predict, batch_size=batch, verbose=0)
    rows = options.rows or find_rows(
        narrowest, rows_of, predict, options.seconds, options.row_multiple
    )
    x = rows_of(rows)
    started = time.perf_counter()
    reference = predict(x)
    patience = _PATIENCE * (time.perf_counter() - started)
    absent = [name for name in RUNTIMES if kind != "cpu" or runtimes.missing(name)]
    contenders = [name for name in options.contenders if name not in absent]
    measured = dataclasses.replace(options, contenders=contenders)
    return {
        "case": "one_device" if options.shared else "throughput",
        "model": ",".join(names),
        "replicas": count,
        "per_replica_batch": batch,
        "rows": rows,
        "devices": list(strategy.extended.worker_devices),
        **machine.describe(),
        "largest_value": _largest_value(reference),
        "left_out": [name for name in options.contenders if name in absent],
        "contenders": _measure(measured, plain, mirrored, x, reference, patience),
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
        return seconds_of(lambda: predict(x))

    return rows_for(seconds, time_of, multiple, most)


def _measure(
    options: BenchmarkOptions,
    plain: InTurn,
    mirrored: InTurn,
    x: Nest,
    reference: Nest,
    patience: float,
) -> dict[str, dict[str, Any]]:
    (batch,), (count,) = options.batches, options.replicas
    few = _FEW_BATCHES * (batch or FEW) * count
    owners, calls, records = {}, {}, {}
    for name in options.contenders:
        size = batch if name == "keras" else batch and batch * count
        try:
            started = time.perf_counter()
            owner = owners[name] = made(name, plain, mirrored, count, batch)
            predict = functools.partial(owner.predict, batch_size=size, verbose=0)
            rows = _all_or_few(predict, x, few, patience) if name in _UNKNOWN else x
            expected = cut(reference, 0, num_rows(rows))
            records[name] = {
                "rows": num_rows(rows),
                "largest_difference": largest_difference(predict(rows), expected),
                "first_call_seconds": time.perf_counter() - started,
            }
            if name == "mgpu_threads":
                records[name]["tried_steps"] = settle(owner, x, size)
            call = functools.partial(predict, rows)
            calls[name] = functools.partial(seconds_of, call)
        except Exception as error:
            if name in _OURS:
                raise
            records[name] = {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    for name, seconds in in_turn(calls, options.repetitions).items():
        record = records[name]
        record["seconds"] = seconds
        record["rows_per_second"] = [record["rows"] / sample for sample in seconds]
        record["report"] = report_of(owners[name])
    return records


def _all_or_few(
    call: Callable[[Nest], object], x: Nest, few: int, patience: float
) -> Nest:
    """All rows, or the first few of them if all would take too many seconds."""
    if few >= num_rows(x):
        return x
    first = cut(x, 0, few)
    call(first)
    seconds = min(seconds_of(lambda: call(first)) for _ in range(3))
    return x if seconds * num_rows(x) / few < patience else first


def in_turn(
    samples: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """Takes samples, in seconds, by functions that have run before."""
    names = list(samples)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(repetitions):
        first = repetition % max(len(names), 1)
        for name in [*names[first:], *names[:first]]:
            gc.collect()
            seconds[name].append(samples[name]())
    return seconds


def seconds_of(call: Callable[[], object], num_calls: int = 1) -> float:
    """The seconds of `num_calls` calls together."""
    started = time.perf_counter()
    for _ in range(num_calls):
        call()
    return time.perf_counter() - started


def rows_for(
    seconds: float, time_of: Callable[[int], float], multiple: int, most: int
) -> int:
    """A multiple of rows for which `time_of` returns about `seconds`, or `most`."""
    rows = multiple
    elapsed = time_of(rows)
    while elapsed < seconds / 4 and rows * 4 <= most:
        rows *= 4
        elapsed = time_of(rows)
    wanted = min(rows * seconds / elapsed, most)
    return max(int(wanted) // multiple, 1) * multiple


def num_rows(x: Nest) -> int:
    """Number of rows of a nest of arrays."""
    return len(tf.nest.flatten(x)[0])


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


def _largest_value(reference: Nest) -> float:
    """The largest finite value, by which differences are judged."""
    leaves = tf.nest.flatten(reference)
    return max(float(abs(x).max(initial=0, where=np.isfinite(x))) for x in leaves)


if __name__ == "__main__":
    processes.serve(lambda **fields: run(BenchmarkOptions(**fields)), *sys.argv[1:])
