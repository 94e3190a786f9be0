"""Reports as Markdown: medians, spreads and ratios. Pure functions over JSON records.

A *run* is one model at one batch on one number of replicas. Contenders can be compared
only within a run, where samples were taken in turn.
"""

import math
import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from keras_mgpu_strategy.benchmark import provenance
from keras_mgpu_strategy.benchmark.options import ENGINES

MISSING = "–"
_CLOSE = 1e-5


def speed(run: dict[str, Any], contender: str) -> float | None:
    """Median rows per second; None if the contender was not measured."""
    samples = run["contenders"].get(contender, {}).get("rows_per_second")
    return float(statistics.median(samples)) if samples else None


def ratio(run: dict[str, Any], contender: str, baseline: str) -> float | None:
    """How many times faster the contender is than the baseline in the same run."""
    own, other = speed(run, contender), speed(run, baseline)
    return None if own is None or not other else own / other


def speed_up(runs: Iterable[dict[str, Any]], contender: str) -> dict[int, float]:
    """Replicas -> speed relative to that with the fewest, of runs of one setting."""
    speeds = {run["replicas"]: speed(run, contender) for run in runs}
    measured = {count: value for count, value in sorted(speeds.items()) if value}
    first = next(iter(measured.values()), None)
    return {count: value / first for count, value in measured.items() if first}


def by_setting(
    runs: Iterable[dict[str, Any]],
) -> dict[tuple[Any, ...], list[dict[str, Any]]]:
    """Groups runs that differ only in their replicas."""
    groups: dict[tuple[Any, ...], list[dict[str, Any]]] = {}
    for run in runs:
        names = ("case", "model", "per_replica_batch", "gpu_names")
        groups.setdefault(tuple(map(run.get, names)), []).append(run)
    return groups


def report(report: dict[str, Any]) -> str:
    """The command, the machine, and a table for each model and batch."""
    parts = [provenance.shown(report, report["command"])]
    for group in by_setting(report["runs"]).values():
        lines = [_line(group, run, name) for run in group for name in run["contenders"]]
        columns = [
            column
            for column in lines[0]
            if any(line[column] not in (MISSING, "") for line in lines)
        ]
        cells = ([line[column] for column in columns] for line in lines)
        parts.append(f"### {_title(group[0])}\n\n{table(columns, cells)}")
    left_out = [f"`{name}`" for name in report["runs"][0].get("left_out", ())]
    if left_out:
        parts.append(
            f"Not measured: {' and '.join(left_out)}. On a CPU, they are after "
            '`pip install "keras_mgpu_strategy[compare]"`.'
        )
    return "\n\n".join(parts) + "\n"


def _line(
    group: list[dict[str, Any]], run: dict[str, Any], name: str
) -> dict[str, str]:
    """Title of a column -> its cell; a column without any value is left out."""
    record, fewest = run["contenders"][name], min(each["replicas"] for each in group)
    gains = speed_up(group, name) if len(group) > 1 else {}
    return {
        "replicas": str(run["replicas"]),
        "CPU threads each": str(run["intra_op_threads"] or MISSING),
        "rows": number(run["rows"]),
        "contender": f"`{name}`",
        "rows/s": number(speed(run, name)),
        "lowest to highest": speed_range(record),
        "against Keras, same strategy": factor(ratio(run, name, "keras_strategy")),
        "against Keras, no strategy": factor(ratio(run, name, "keras")),
        "against plain": factor(ratio(run, name, "mgpu_plain")),
        f"against {fewest}": factor(gains.get(run["replicas"])),
        "first call, s": number(record.get("first_call_seconds")),
        "notes": _notes(run, name),
    }


def _title(run: dict[str, Any]) -> str:
    batch, gpus = run["per_replica_batch"], run["gpu_names"]
    size = "default arguments" if batch is None else f"per-replica batch {batch}"
    shared = ", replicas share one device" if run["case"] == "one_device" else ""
    return f"{run['model']}, {size}{shared}{f', GPU: {gpus}' if gpus else ''}"


def _notes(run: dict[str, Any], name: str) -> str:
    record = run["contenders"][name]
    report = record.get("report")
    notes = [record["error"]] if "error" in record else []
    if run["per_replica_batch"] is None and report:
        notes.append(f"batch {report['batch_size']} found")
    if name in ENGINES and report and report.get("step"):
        notes.append(f"auto: {report['step']}")
    if record.get("rows", run["rows"]) < run["rows"]:
        notes.append(f"slow: only the first {number(record['rows'])} rows")
    notes += apart(run, name)
    return "; ".join(" ".join(note.split())[:120].replace("|", "/") for note in notes)


def apart(run: dict[str, Any], contender: str) -> list[str]:
    """What is said of results that differ from Keras' by more than rounding."""
    difference = run["contenders"][contender].get("largest_difference", 0)
    is_apart = difference > _CLOSE * run.get("largest_value", math.inf)
    return [f"results differ by up to {difference:.1e}"] * is_apart


def speed_range(record: dict[str, Any]) -> str:
    """Lowest and highest rows per second of a contender's record."""
    samples = record.get("rows_per_second")
    return f"{number(min(samples))} to {number(max(samples))}" if samples else MISSING


def number(value: float | None) -> str:
    """Rounds to three digits, or to an integer from 100 onwards."""
    if value is None:
        return MISSING
    is_whole = isinstance(value, int) or value >= 99.95 or not value
    return f"{value:,.0f}" if is_whole else f"{value:#.3g}"


def factor(value: float | None) -> str:
    """A ratio with two decimals."""
    return MISSING if value is None else f"{value:.2f}"


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table with a header line."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
