"""Checks reports against what the project promises; see docs/performance.md.

    python benchmarks/bars.py benchmarks/results/*.json [--contender=mgpu_threads]

prints one line per promise, and exits with code 1 if one is not kept.
"""

import argparse
import dataclasses
import json
import pathlib
import sys
from collections.abc import Callable
from typing import Any

from suite.tables import scaling_of_limit

from keras_mgpu_strategy.benchmark import tables

Run = dict[str, Any]

_FIVE = (("tiny", 1024), ("mlp", 32), ("mlp", 1024), ("cnn", 512), ("resnet50", 8))
_LARGEST_MEMORY = 300e6


@dataclasses.dataclass(frozen=True)
class Bar:
    """One promise.

    Args:
        text: What is promised.
        at_least: The number to reach.
        measured: Finds a contender's number in the runs of all reports; None if it was
            not measured.
    """

    text: str
    at_least: float
    measured: Callable[[list[Run], str], float | None]


def _ratio(
    case: str,
    model: str,
    batch: int | None,
    replicas: int,
    to: str,
    report: str | None = None,
) -> Any:
    key = (case, model, batch, replicas, report)

    def measured(runs: list[Run], contender: str) -> float | None:
        ratios = (tables.ratio(run, contender, to) for run in runs if _key(run) == key)
        return next((ratio for ratio in ratios if ratio is not None), None)

    return measured


def _scaling(model: str, batch: int) -> Any:
    def measured(runs: list[Run], contender: str) -> float | None:
        group = tables.by_setting(runs).get(("throughput", model, batch, None), [])
        return scaling_of_limit(group, contender).get(2)

    return measured


def _memory(runs: list[Run], contender: str) -> float | None:
    """How many times the peak fits into the allowed memory."""
    for run in runs:
        if run["case"] == "memory" and contender in run["contenders"]:
            peak = run["contenders"][contender]["anonymous_bytes_above"]
            return _LARGEST_MEMORY / max(peak, 1)
    return None


def _key(run: Run) -> tuple[Any, ...]:
    names = ("case", "model", "per_replica_batch", "replicas", "simulated")
    return tuple(run.get(name) for name in names)


def _throughput(
    text: str, replicas: int, to: str, least: dict[Any, float]
) -> list[Bar]:
    return [
        Bar(
            f"{text}, {model} at {batch}, R = {replicas}",
            at_least,
            _ratio("throughput", model, batch, replicas, to),
        )
        for (model, batch), at_least in least.items()
    ]


def _bars() -> list[Bar]:
    last_three = dict.fromkeys(_FIVE[2:], 0.95)
    same = dict(zip(_FIVE, (12, 5, 1.5, 1.5, 1.15), strict=True))
    plain = dict(zip(_FIVE, (10, 3, 1.25, 1.15, 1.0), strict=True))
    return [
        *_throughput("Keras predict, same strategy", 2, "keras_strategy", same),
        *_throughput("Keras predict, no strategy", 1, "keras", plain),
        *_throughput("share of the limit", 1, "limit", last_three),
        *_throughput("share of the limit", 2, "limit", last_three),
        *(
            Bar(
                f"scaling against the limit's own, {model}", 0.97, _scaling(model, size)
            )
            for model, size in _FIVE[3:]
        ),
        *(
            Bar(
                f"{count} simulated GPUs, share of the limit",
                0.95,
                _ratio("throughput", "tiny", 1024, count, "limit", report),
            )
            for count, report in ((8, "simulated"), (16, "simulated-16"))
        ),
        Bar(
            "8, one 3 times slower, share of the limit",
            0.9,
            _ratio("throughput", "tiny", 1024, 8, "limit", "simulated-unequal"),
        ),
        *(
            Bar(
                f"default arguments against Keras', {model}",
                at_least,
                _ratio("defaults", model, None, 1, "keras"),
            )
            for model, at_least in (("tiny", 100), ("mlp", 4))
        ),
        Bar(
            "small call against Keras predict, same strategy",
            100,
            _ratio("small_calls", "tiny", None, 2, "keras_strategy"),
        ),
        Bar("300 MB over the peak memory", 1.0, _memory),
    ]


def main() -> int:
    """Prints the table; returns the exit code."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("reports", nargs="+", type=pathlib.Path)
    parser.add_argument("--contender", default="mgpu_threads")
    arguments = parser.parse_args()
    runs = [
        # Reports of simulated GPUs differ in settings that only their names record.
        run | ({"simulated": path.stem} if "simulated" in path.stem else {})
        for path in arguments.reports
        for report in [json.loads(path.read_text())]
        if isinstance(report, dict)  # other scripts write lists
        for run in report["runs"]
    ]
    print("| | at least | measured | |\n| --- | --- | --- | --- |")
    all_kept = True
    for bar in _bars():
        value = bar.measured(runs, arguments.contender)
        kept = value is not None and value >= bar.at_least
        all_kept &= kept
        shown = "not measured" if value is None else f"{value:.2f}"
        print(f"| {bar.text} | {bar.at_least:g} | {shown} | {'' if kept else 'no'} |")
    return 0 if all_kept else 1


if __name__ == "__main__":
    sys.exit(main())
