"""Numbers and tables as Markdown. Pure functions."""

from collections.abc import Iterable, Sequence
from typing import Any

MISSING = "–"


def number(value: float | None) -> str:
    """Rounds to three digits, or to an integer from 100 onwards."""
    if value is None:
        return MISSING
    is_whole = isinstance(value, int) or value >= 99.95 or not value
    return f"{value:,.0f}" if is_whole else f"{value:#.3g}"


def factor(value: float | None) -> str:
    """A ratio with two decimals."""
    return MISSING if value is None else f"{value:.2f}"


def speed_range(record: dict[str, Any]) -> str:
    """Lowest and highest rows per second of a contender's record."""
    samples = record.get("rows_per_second")
    return f"{number(min(samples))} to {number(max(samples))}" if samples else MISSING


def on_gpus(run: dict[str, Any]) -> str:
    """Names the GPUs that a run was measured on, after a comma; empty on CPUs."""
    return f", GPU: {run['gpu_names']}" if run.get("gpu_names") else ""


def table(columns: Sequence[str], lines: Iterable[Sequence[str]]) -> str:
    """A table with a header line."""
    rows = [columns, ["---"] * len(columns), *lines]
    return "\n".join(f"| {' | '.join(row)} |" for row in rows)
