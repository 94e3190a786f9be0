"""How fast a run is, and how long it will take."""

import dataclasses
from collections import deque

from keras_mgpu_strategy.report import Report, StageClock
from keras_mgpu_strategy.runs.progress.figures import Figures

_WINDOW_SECONDS = 30.0


@dataclasses.dataclass(frozen=True)
class RowRange:
    """The rows of a job, of which earlier runs may have done some.

    Args:
        first: First row of the job; more than 0 in a shard.
        start: First row that is not done. A run may begin slightly before it, so that
            its batches are cut like those of earlier runs.
        stop: One past the last row, or None if unknown.
    """

    first: int = 0
    start: int = 0
    stop: int | None = None


class Meter:
    """Turns rows and times into figures.

    The rate is that of the last 30 seconds. It excludes rows done by earlier runs and
    the time for compiling at the beginning.

    Args:
        rows: What is to be done.
        clock: Where the time goes.
    """

    def __init__(self, rows: RowRange, clock: StageClock):
        self._rows = rows
        self._clock = clock
        self._looks: deque[tuple[float, int]] = deque()
        self._compile_seconds = 0.0
        self._num_compiles = 0

    def look(self, row: int, seconds: float) -> Figures:
        """The figures of a run that has reached a row, some seconds after it began."""
        row, report = max(row, self._rows.start), self._clock.report()
        if self._has_begun_anew(report):
            self._looks.clear()
        self._looks.append((seconds, row))
        while len(self._looks) > 2 and self._looks[1][0] <= seconds - _WINDOW_SECONDS:
            self._looks.popleft()
        return self._figures(row, seconds, self._rate(), report)

    def last(self, row: int, seconds: float, *, is_complete: bool) -> Figures:
        """The figures of a run that has ended, with its overall rate.

        Args:
            row: One past the last row done.
            seconds: Since the run began.
            is_complete: Whether the batches ran out, so that the number of rows is
                known.
        """
        row = max(row, self._rows.start)
        num_rows = row - self._rows.start
        rate = num_rows / seconds if num_rows and seconds > 0 else None
        figures = self._figures(row, seconds, rate, self._clock.report())
        if figures.total is None and is_complete:
            return dataclasses.replace(figures, total=figures.done)
        return figures

    def _figures(
        self, row: int, seconds: float, rate: float | None, report: Report
    ) -> Figures:
        first, stop = self._rows.first, self._rows.stop
        return Figures(
            done=row - first,
            total=None if stop is None else stop - first,
            seconds=seconds,
            rate=rate,
            seconds_left=(stop - row) / rate if rate and stop is not None else None,
            bound=report.bound if report.rows else None,
        )

    def _rate(self) -> float | None:
        (began, first), (ended, last) = self._looks[0], self._looks[-1]
        return (last - first) / (ended - began) if ended > began else None

    def _has_begun_anew(self, report: Report) -> bool:
        """Whether the run compiled since the last look, as it does at its beginning.

        If rows vary in shape, a model is compiled repeatedly. That is part of its
        pace, so only as many times count as every run needs: once per replica, and
        once for each batch size that is tried.
        """
        has_compiled = report.compile_seconds > self._compile_seconds
        self._compile_seconds = report.compile_seconds
        self._num_compiles += has_compiled
        expected = report.num_replicas + len(report.tried_batches)
        return has_compiled and self._num_compiles <= expected
