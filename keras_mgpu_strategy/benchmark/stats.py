"""Medians and ratios of what was measured. Pure functions over the JSON records.

A *run* is the record of one job: `run["contenders"][name]["rows_per_second"]` is a
list with one number per repetition. Runs of one report can be compared, since their
samples were taken in turn; runs of different reports cannot.
"""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any


def median(samples: Sequence[float]) -> float:
    """Median of one or more samples."""
    return float(statistics.median(samples))


def speed(run: dict[str, Any], contender: str) -> float | None:
    """Median rows per second; None if the contender was not measured."""
    samples = run["contenders"].get(contender, {}).get("rows_per_second")
    return median(samples) if samples else None


def ratio(run: dict[str, Any], contender: str, baseline: str) -> float | None:
    """How many times faster the contender is than the baseline in the same run."""
    return _quotient(speed(run, contender), speed(run, baseline))


def speed_up(runs: Iterable[dict[str, Any]], contender: str) -> dict[int, float]:
    """Replicas -> speed relative to that with the fewest replicas.

    Args:
        runs: Runs of one model and batch, which differ in their replicas.
        contender: Name of the contender.
    """
    speeds = {run["replicas"]: speed(run, contender) for run in runs}
    measured = {replicas: value for replicas, value in speeds.items() if value}
    if not measured:
        return {}
    first = measured[min(measured)]
    return {replicas: measured[replicas] / first for replicas in sorted(measured)}


def scaling_of_limit(
    runs: Sequence[dict[str, Any]], contender: str
) -> dict[int, float]:
    """Replicas -> speed-up of the contender, as a share of the limit's own."""
    own, limit = speed_up(runs, contender), speed_up(runs, "limit")
    return {
        replicas: own[replicas] / limit[replicas]
        for replicas in own
        if replicas in limit
    }


def by_setting(
    runs: Iterable[dict[str, Any]],
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Groups runs that differ only in their replicas."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        names = ("case", "model", "per_replica_batch", "gpu_names")
        key = tuple(run.get(name) for name in names)
        groups.setdefault(key, []).append(run)
    return groups


def _quotient(dividend: float | None, divisor: float | None) -> float | None:
    return None if dividend is None or not divisor else dividend / divisor
