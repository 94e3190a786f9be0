"""A report as Markdown: medians, ratios and scaling. Pure functions."""

import statistics
from collections.abc import Iterable, Sequence
from typing import Any

from keras_mgpu_strategy.benchmark import tables as stats
from keras_mgpu_strategy.benchmark.tables import (
    MISSING,
    factor,
    number,
    speed_range,
    table,
)
from suite import catalog, provenance


def report(report: dict[str, Any]) -> str:
    """The whole report, with the command and the machine it comes from."""
    head = provenance.shown(report, report["command"])
    parts = [_runs_of_case(case, report["runs"]) for case in catalog.CASES]
    return "\n\n".join([head, *(part for part in parts if part)]) + "\n"


def _runs_of_case(case: str, runs: Iterable[dict[str, Any]]) -> str:
    own = [run for run in runs if run["case"] == case]
    if not own:
        return ""
    parts = [f"## {case}: {catalog.CASES[case]}", *_CASE_TABLES[case](own)]
    return "\n\n".join(parts)


def _throughput(runs: Sequence[dict[str, Any]]) -> list[str]:
    tables = [_run_table(run) for run in runs]
    scaling = [table for table in (_scaling(runs),) if table]
    return [*tables, *scaling]


def _run_table(run: dict[str, Any]) -> str:
    lines = []
    for name, record in run["contenders"].items():
        ratios = [
            stats.ratio(run, name, baseline)
            for baseline in ("keras_strategy", "keras", "limit")
        ]
        cells = [number(stats.speed(run, name)), speed_range(record)]
        notes = [f"`{name}`", *cells, *map(factor, ratios), _notes(record)]
        lines.append(notes)
    columns = [
        "",
        "rows/s",
        "lowest to highest",
        "against Keras, same strategy",
        "against Keras, no strategy",
        "share of the limit",
        "",
    ]
    return f"{_title(run)}\n\n{table(columns, lines)}"


def _small_calls(runs: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        [
            run["model"],
            str(run["replicas"]),
            name,
            number(_call_seconds(run, record) * 1000),
            factor(stats.ratio(run, name, "keras_strategy")),
            factor(stats.ratio(run, name, "keras")),
            factor(stats.ratio(run, name, "strategy_run")),
        ]
        for run in runs
        for name, record in run["contenders"].items()
        if "seconds" in record
    ]
    columns = [
        "model",
        "replicas",
        "",
        f"ms for a call of {runs[0]['rows']} rows",
        "against Keras, same strategy",
        "against Keras, no strategy",
        "against bare strategy.run",
    ]
    return [table(columns, lines)]


def _memory(runs: Sequence[dict[str, Any]]) -> list[str]:
    lines = [
        [
            run["model"],
            str(run["replicas"]),
            number(run["rows"]),
            f"`{name}`",
            number(record["anonymous_bytes_above"] / 1e6),
            number(stats.speed(run, name)),
        ]
        for run in runs
        for name, record in run["contenders"].items()
    ]
    columns = ["model", "replicas", "rows", "", "peak MB above the model", "rows/s"]
    return [table(columns, lines)]


def _scaling(runs: Sequence[dict[str, Any]]) -> str:
    """Speed-up relative to the fewest replicas, by contender."""
    lines = []
    for (_, model, batch, _), group in stats.by_setting(runs).items():
        replicas = sorted(run["replicas"] for run in group)
        for name in _names(group) if len(group) > 1 else ():
            gains = stats.speed_up(group, name)
            shares = scaling_of_limit(group, name)
            lines += [
                [model, str(batch), f"`{name}`", f"{replicas[0]} to {count}"]
                + [factor(gains.get(count)), factor(shares.get(count))]
                for count in replicas[1:]
            ]
    columns = ["model", "batch", "", "replicas", "speed-up", "of the limit's own"]
    return f"### Scaling\n\n{table(columns, lines)}" if lines else ""


def _one_device(runs: Sequence[dict[str, Any]]) -> list[str]:
    """Whether a second replica on a device pays, compared with the fewest replicas."""
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
        _sharing_line(run, name, gains)
        for group in stats.by_setting(runs).values()
        for name in group[0]["contenders"]
        for gains in [stats.speed_up(group, name)]
        for run in group
    ]
    gpus = runs[0].get("gpu_names")
    device = f"a GPU ({gpus})" if gpus else "the CPU"
    return [f"All replicas share {device}.", table(columns, lines)]


def _sharing_line(run: dict[str, Any], name: str, gains: dict[int, float]) -> list[str]:
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


_CASE_TABLES = {
    "throughput": _throughput,
    "defaults": _throughput,
    "small_calls": _small_calls,
    "memory": _memory,
    "one_device": _one_device,
}


def scaling_of_limit(
    runs: Sequence[dict[str, Any]], contender: str
) -> dict[int, float]:
    """Replicas -> speed-up of the contender, as a share of the limit's own."""
    own, limit = stats.speed_up(runs, contender), stats.speed_up(runs, "limit")
    return {count: own[count] / limit[count] for count in own if count in limit}


def on_gpus(run: dict[str, Any]) -> str:
    """The names of the GPUs of a run, after a comma; empty on CPUs."""
    return f", GPU: {run['gpu_names']}" if run.get("gpu_names") else ""


def _title(run: dict[str, Any]) -> str:
    batch = run["per_replica_batch"]
    size = "default arguments" if batch is None else f"per-replica batch {batch}"
    plural = "" if run["replicas"] == 1 else "s"
    return (
        f"### {run['model']}, {size}, {run['replicas']} replica{plural}, "
        f"{run['rows']:,} rows{on_gpus(run)}"
    )


def _notes(record: dict[str, Any]) -> str:
    odd = record.get("odd_rows") or {}
    notes = [record["error"]] if "error" in record else []
    if record.get("start_up_seconds"):
        notes.append(f"{record['start_up_seconds']:.1f} s to start, not counted")
    if odd.get("dropped"):
        notes.append(f"dropped {odd['dropped']} of {odd['rows_in']} rows")
    if "error" in odd:
        notes.append(f"{odd['rows_in']} rows: {odd['error']}")
    return "; ".join(" ".join(note.split())[:120].replace("|", "/") for note in notes)


def _call_seconds(run: dict[str, Any], record: dict[str, Any]) -> float:
    return statistics.median(record["seconds"]) / run["calls_per_sample"]


def _names(runs: Iterable[dict[str, Any]]) -> list[str]:
    return list(dict.fromkeys(name for run in runs for name in run["contenders"]))
