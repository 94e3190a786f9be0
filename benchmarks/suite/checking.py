"""Whether a contender's results are right, before its speed is measured."""

import time
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.benchmark.measure import largest_difference
from keras_mgpu_strategy.types import Nest
from suite.interface import Contender, num_rows


def first_call(contender: Contender, x: Nest, reference: Nest) -> dict[str, Any]:
    """Runs the first call, which traces and compiles; compares the results."""
    started = time.perf_counter()
    results = contender.predict(x)
    record: dict[str, Any] = {"first_call_seconds": time.perf_counter() - started}
    if results is not None:
        record["largest_difference"] = _compare(contender, x, results, reference)
    return record


def odd_rows(contender: Contender, x: Nest, reference: Nest) -> dict[str, Any] | None:
    """Tries an odd number of rows; None for a contender that keeps no results."""
    record: dict[str, Any] = {"rows_in": num_rows(x)}
    try:
        results = contender.predict(x)
        if results is None:
            return None
        record["rows_out"] = num_rows(results)
        record["dropped"] = record["rows_in"] - record["rows_out"]
        _compare(contender, x, results, reference)
    except Exception as error:  # noqa: BLE001 - what a user would see is the finding
        record["error"] = f"{type(error).__name__}: {str(error)[:300]}"
    return record


def _compare(contender: Contender, x: Nest, results: Nest, reference: Nest) -> float:
    kept = contender.kept(num_rows(x))
    return largest_difference(
        results, tf.nest.map_structure(lambda leaf: leaf[kept], reference)
    )
