"""How far a run is, how fast, and how long it will take."""

import dataclasses
import datetime
from collections import deque

from keras_mgpu_strategy.report import Report, StageClock, rate_text

_WINDOW_SECONDS = 30.0
_UNITS = (("d", 86_400), ("h", 3_600), ("min", 60), ("s", 1))


@dataclasses.dataclass(frozen=True)
class RowRange:
    """The rows of an output; those before `start` are done, but may be run again."""

    first: int = 0  # more than 0 in a shard
    start: int = 0
    stop: int | None = None  # None if unknown


@dataclasses.dataclass(frozen=True)
class Figures:
    """How far a run is; None or an empty text for what is unknown."""

    done: int  # rows, those of earlier runs too
    total: int | None
    seconds: float  # since this run began
    seconds_left: float | None
    rate: str  # such as "45,600 rows/s": recently, or of the whole run at its end
    bound: str  # what the run waits for most, such as "input-bound"

    @property
    def short_rows_text(self) -> str:
        """Such as "1,234/10,000"."""
        rest = " rows" if self.total is None else f"/{self.total:,}"
        return f"{self.done:,}{rest}"

    def line(self, ending: str | None = None) -> str:
        """Such as "12 of 99 rows (12%), 3 rows/s, 29 s left, input-bound".

        `ending`, such as "in", stands before the time of a run.
        """
        rows, times = f"{self.done:,} rows", ""
        if self.total is not None:  # 100% only if all are done
            percent = 100 * self.done // self.total if self.total else 100
            rows = f"{self.done:,} of {self.total:,} rows ({percent}%)"
        if ending:
            times = f"{ending} {duration(self.seconds)}"
        elif self.seconds_left is not None:
            times = f"{duration(self.seconds_left)} left"
        return ", ".join(filter(None, (rows, self.rate, times, self.bound)))


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


class Meter:
    """Turns rows and times into figures; the rate is that of the last 30 seconds."""

    def __init__(self, rows: RowRange, clock: StageClock):
        self.rows = rows
        self._clock = clock
        self._looks: deque[tuple[float, int]] = deque()
        self._compile_seconds = 0.0
        self._num_compiles = 0

    def look(self, row: int, seconds: float) -> Figures:
        """The figures of a run that has reached a row, some seconds after it began."""
        row, report = max(row, self.rows.start), self._clock.report()
        if self._has_begun_anew(report):
            self._looks.clear()
        self._looks.append((seconds, row))
        while len(self._looks) > 2 and self._looks[1][0] <= seconds - _WINDOW_SECONDS:
            self._looks.popleft()
        began, first = self._looks[0]
        rate = (row - first) / (seconds - began) if seconds > began else None
        return self._figures(row, seconds, rate, report)

    def last(self, row: int, seconds: float, *, is_complete: bool) -> Figures:
        """The figures of an ended run, at its overall rate; all rows if complete."""
        row = max(row, self.rows.start)
        num_rows = row - self.rows.start
        rate = num_rows / seconds if num_rows and seconds > 0 else None
        figures = self._figures(row, seconds, rate, self._clock.report())
        if figures.total is None and is_complete:
            return dataclasses.replace(figures, total=figures.done)
        return figures

    def _figures(
        self, row: int, seconds: float, rate: float | None, report: Report
    ) -> Figures:
        first, stop = self.rows.first, self.rows.stop
        return Figures(
            done=row - first,
            total=None if stop is None else stop - first,
            seconds=seconds,
            seconds_left=(stop - row) / rate if rate and stop is not None else None,
            rate="" if rate is None else f"{rate_text(rate)} rows/s",
            bound=f"{report.bound}-bound" if report.rows and report.bound else "",
        )

    def _has_begun_anew(self, report: Report) -> bool:
        """Whether it compiled since the last look, up to once a replica and trial."""
        has_compiled = report.compile_seconds > self._compile_seconds
        self._compile_seconds = report.compile_seconds
        self._num_compiles += has_compiled
        expected = report.num_replicas + len(report.tried_batches)
        return has_compiled and self._num_compiles <= expected
