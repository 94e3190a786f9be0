"""What a display shows, and how numbers are formatted."""

import dataclasses
import datetime

from keras_mgpu_strategy import report

_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@dataclasses.dataclass(frozen=True)
class Figures:
    """How far a run is; None for what is unknown.

    Args:
        done: Rows of the job that are done, including in earlier runs.
        total: Rows of the job.
        seconds: Since this run began.
        rate: Rows a second: recently, or over the whole run once it has ended.
        seconds_left: Until the job is done.
        bound: What the run waits for most.
    """

    done: int
    total: int | None
    seconds: float
    rate: float | None
    seconds_left: float | None
    bound: str | None


def rows_text(figures: Figures) -> str:
    """Such as "1,234 of 10,000 rows (12%)"; 100% only if all are done."""
    done, total = figures.done, figures.total
    if total is None:
        return f"{done:,} rows"
    percent = 100 * done // total if total else 100
    return f"{done:,} of {total:,} rows ({percent}%)"


def short_rows_text(figures: Figures) -> str:
    """Such as "1,234/10,000"."""
    done, total = figures.done, figures.total
    return f"{done:,} rows" if total is None else f"{done:,}/{total:,}"


def rate_text(figures: Figures) -> str:
    """Such as "45,600 rows/s" or "0.033 rows/s", or empty."""
    return "" if figures.rate is None else f"{report.rate_text(figures.rate)} rows/s"


def bound_text(figures: Figures) -> str:
    """Such as "input-bound", or empty."""
    return f"{figures.bound}-bound" if figures.bound else ""


def duration(seconds: float) -> str:
    """The two largest units, such as "3 min 12 s"."""
    rest, parts = round(seconds), []
    for name, size in _UNITS:
        count, rest = divmod(rest, size)
        if count or parts:
            parts.append(f"{count} {name}")
    return " ".join(parts[:2]) or "0 s"


def short_duration(seconds: float) -> str:
    """Such as "0:03:12", which leaves room for a bar in 80 columns."""
    return str(datetime.timedelta(seconds=round(seconds)))
