"""The table of replicas that share one device: does a second one pay off?"""

from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.benchmark import stats
from keras_mgpu_strategy.benchmark.cells import (
    MISSING,
    factor,
    number,
    speed_range,
    table,
)


def tables(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Names the device, and compares all speeds with those of the fewest replicas."""
    fewest = min(run["replicas"] for run in runs)
    columns = [
        "model",
        "per-replica batch",
        "replicas",
        "CPU threads each",
        "",
        "rows/s",
        "lowest to highest",
        f"against {fewest}",
    ]
    lines = [
        _line(run, name, gains)
        for group in stats.by_setting(runs).values()
        for name in group[0]["contenders"]
        for gains in [stats.speed_up(group, name)]
        for run in group
    ]
    gpus = runs[0].get("gpu_names")
    device = f"a GPU ({gpus})" if gpus else "the CPU"
    return [f"All replicas share {device}.", table(columns, lines)]


def _line(run: dict[str, Any], name: str, gains: dict[int, float]) -> list[str]:
    record = run["contenders"][name]
    return [
        run["model"],
        _batch(run, record),
        str(run["replicas"]),
        str(run["intra_op_threads"] or MISSING),
        f"`{name}`",
        number(stats.speed(run, name)),
        speed_range(record),
        factor(gains.get(run["replicas"])),
    ]


def _batch(run: dict[str, Any], record: dict[str, Any]) -> str:
    """The batch, or the one that a Predictor found if none was given."""
    if run["per_replica_batch"] is not None:
        return str(run["per_replica_batch"])
    report = record.get("report") or {}
    return f"automatic ({report.get('batch_size', MISSING)})"
