"""Where figures are shown: lines in a log, a bar on a terminal."""

import sys
from typing import Any, Protocol, TextIO, cast

from keras_mgpu_strategy.runs.progress.figures import (
    Figures,
    bound_text,
    duration,
    rate_text,
    rows_text,
    short_duration,
    short_rows_text,
)
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.system.screen import Screen

_SECONDS_BETWEEN_LINES = 30.0
_FIELDS = ("rows", "rate", "times", "bound")


class Display(Protocol):
    """Shows one run: `begin` once, `update` often, `end` once, whatever happened."""

    def begin(self, figures: Figures) -> None:
        """Shows what is known before the first batch."""
        ...

    def update(self, figures: Figures) -> None:
        """Shows the current figures."""
        ...

    def end(self, figures: Figures) -> None:
        """Shows the last figures, and leaves the stream as it was found."""
        ...


class Lines:
    """Plain lines, each complete and flushed.

    Args:
        screen: Where to write them.
    """

    def __init__(self, screen: Screen):
        self._screen = screen
        self._due = _SECONDS_BETWEEN_LINES

    def begin(self, figures: Figures) -> None:
        """Writes nothing: there is nothing to report yet."""

    def update(self, figures: Figures) -> None:
        """Writes a line if the last one is 30 seconds old."""
        if figures.seconds >= self._due:
            self._due = figures.seconds + _SECONDS_BETWEEN_LINES
            left = figures.seconds_left
            self._write(figures, "" if left is None else f"{duration(left)} left")

    def end(self, figures: Figures) -> None:
        """Writes the last line."""
        self._write(figures, f"in {duration(figures.seconds)}")

    def _write(self, figures: Figures, times: str) -> None:
        parts = (rows_text(figures), rate_text(figures), times, bound_text(figures))
        self._screen.write(", ".join(part for part in parts if part) + "\n")
        self._screen.flush()


class Bar:
    """A live bar, drawn by rich. A file gets only its last state.

    Args:
        screen: Where to draw it.
        description: Its first column.

    Raises:
        ImportError: rich is not installed.
    """

    def __init__(self, screen: Screen, description: str):
        self._progress = _rich_progress(screen)
        empty: dict[str, Any] = dict.fromkeys(_FIELDS, "")
        self._task = self._progress.add_task(description, total=None, **empty)

    def begin(self, figures: Figures) -> None:
        """Draws the bar and hides the cursor."""
        self.update(figures)
        self._progress.start()

    def update(self, figures: Figures) -> None:
        """Redraws the bar."""
        left = figures.seconds_left
        self._draw(figures, "" if left is None else f"eta {short_duration(left)}")

    def end(self, figures: Figures) -> None:
        """Draws the bar once more and shows the cursor."""
        try:
            self._draw(figures, f"in {short_duration(figures.seconds)}")
        finally:
            self._progress.stop()

    def _draw(self, figures: Figures, times: str) -> None:
        self._progress.update(
            self._task,
            completed=figures.done,
            total=figures.total,
            rows=short_rows_text(figures),
            rate=rate_text(figures),
            times=times,
            bound=bound_text(figures),
            refresh=True,
        )


def _rich_progress(screen: Screen) -> Any:
    use = "A progress bar"
    otherwise = (
        "Or pass verbose=2 for lines instead of a bar, or verbose=0 for neither."
    )
    bars = import_extra("rich.progress", "progress", use, otherwise)
    consoles = import_extra("rich.console", "progress", use, otherwise)
    fields = [f"{{task.fields[{name}]}}" for name in _FIELDS]
    return bars.Progress(
        bars.TextColumn("{task.description}", markup=False),
        bars.BarColumn(bar_width=None),
        *(bars.TextColumn(field, markup=False) for field in fields),
        console=consoles.Console(file=cast(TextIO, screen)),
        auto_refresh=False,
        # What is printed in the meantime belongs above the bar, except for what was
        # sent to a file.
        redirect_stdout=Screen(sys.stdout).isatty(),
        redirect_stderr=Screen(sys.stderr).isatty(),
    )
