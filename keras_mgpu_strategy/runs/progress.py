"""Passes the batches of a run on, and shows how far it is.

Rows are done when the next batch is asked for. No batch is kept, no thread is started,
no stream that is missing or gone ends a run, and the bar always ends with the run.
"""

import contextlib
import sys
import time
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any, TextIO, cast

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn

from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.callbacks import Verbose, check_verbose
from keras_mgpu_strategy.runs.figures import Figures, Meter, RowRange, short_duration
from keras_mgpu_strategy.runs.run import Run
from keras_mgpu_strategy.system.kernel import in_kernel
from keras_mgpu_strategy.system.screen import Screen
from keras_mgpu_strategy.types import HostBatch

# Drawing a bar takes some milliseconds on the host, which also feeds the devices.
_SECONDS_BETWEEN_LOOKS = 0.25
_SECONDS_BETWEEN_LINES = 30.0
_FIELDS = ("rows", "rate", "times", "bound")
_SECONDS_BEFORE_IT_APPEARS = 1.0  # in a kernel
_CELLS = 20
_HTML = (
    '<div style="font-variant-numeric: tabular-nums">'
    '<progress max="1" value="{share:.4f}" style="vertical-align: middle; width: 20em">'
    "</progress> {text}</div>"
)


def show_progress(
    batches: Iterable[HostBatch],
    rows: RowRange,
    clock: StageClock,
    verbose: Verbose = "auto",
    *,
    stream: TextIO | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Generator[HostBatch, None, None]:
    """Passes batches on and shows how far the run is; closing it ends the bar."""
    display = _kernel_bar(verbose) if stream is None else None
    if display is None:
        screen = Screen(sys.stderr if stream is None else stream)
        # The log of a long run should show how far it is; that of `predict` need not.
        by_default = 1 if screen.isatty() else 2
        level = by_default if verbose == "auto" else check_verbose(verbose)
        if level == 0:
            return (batch for batch in batches)
        display = _Bar(screen) if level == 1 else _Lines(screen)
    return _shown(batches, Meter(rows, clock), display, now)


@contextlib.contextmanager
def shown_in_kernel(run: Run, verbose: Verbose) -> Iterator[Iterator[HostBatch]]:
    """Results for memory, above a bar if in a kernel; elsewhere Keras' bar is shown."""
    bar = _kernel_bar(verbose)
    with contextlib.closing(run.batches(0)) as results:
        if bar is None:
            yield results
            return
        meter = Meter(RowRange(stop=run.rows.source.num_rows), run.clock)
        with contextlib.closing(_shown(results, meter, bar)) as passing:
            yield passing


def _shown(
    batches: Iterable[HostBatch],
    meter: Meter,
    display: "_Lines | _Bar | _KernelBar",
    now: Callable[[], float] = time.monotonic,
) -> Generator[HostBatch, None, None]:
    row = meter.rows.start
    began = looked = now()
    is_complete = False
    try:
        display.show(meter.look(row, 0.0))
        for batch in batches:
            row = batch.start
            yield batch
            row, moment = batch.stop, now()
            if moment - looked >= _SECONDS_BETWEEN_LOOKS:
                looked = moment
                display.show(meter.look(row, moment - began))
        is_complete = True
    finally:
        figures = meter.last(row, now() - began, is_complete=is_complete)
        display.show(figures, is_last=True)


class _Lines:
    """Plain lines, each complete and flushed: every 30 seconds, and a last one."""

    def __init__(self, screen: Screen):
        self._screen = screen
        self._due = _SECONDS_BETWEEN_LINES

    def show(self, figures: Figures, *, is_last: bool = False) -> None:
        if figures.seconds < self._due and not is_last:
            return
        self._due = figures.seconds + _SECONDS_BETWEEN_LINES
        self._screen.write(figures.line("in" if is_last else None) + "\n")
        self._screen.flush()


class _Bar:
    """A live bar, drawn by rich. A file gets only its last state."""

    def __init__(self, screen: Screen):
        self._progress = Progress(
            TextColumn("{task.description}"),
            BarColumn(bar_width=None),
            *(TextColumn(f"{{task.fields[{name}]}}") for name in _FIELDS),
            console=Console(file=cast(TextIO, screen)),
            auto_refresh=False,
            # What is printed in the meantime belongs above the bar, except for what
            # was sent to a file.
            redirect_stdout=Screen(sys.stdout).isatty(),
            redirect_stderr=Screen(sys.stderr).isatty(),
        )
        empty: dict[str, Any] = dict.fromkeys(_FIELDS, "")
        self._task = self._progress.add_task("predicting", total=None, **empty)

    def show(self, figures: Figures, *, is_last: bool = False) -> None:
        """Draws the bar. The first call hides the cursor, the last one shows it."""
        left, times = figures.seconds_left, ""
        if is_last:
            times = f"in {short_duration(figures.seconds)}"
        elif left is not None:
            times = f"eta {short_duration(left)}"
        try:
            self._progress.update(
                self._task,
                completed=figures.done,
                total=figures.total,
                rows=figures.short_rows_text,
                rate=figures.rate,
                times=times,
                bound=figures.bound,
                refresh=True,
            )
            self._progress.start()  # does nothing but the first time
        finally:
            if is_last:
                self._progress.stop()


def _kernel_bar(verbose: Verbose) -> "_KernelBar | None":
    """The bar of a run in a kernel; None elsewhere, or if none is wanted."""
    if verbose in (0, 2) or not in_kernel():
        return None
    return _KernelBar(_SECONDS_BEFORE_IT_APPEARS if verbose == "auto" else 0.0)


class _KernelBar:
    """A line below the cell of a notebook; an error of the display ends it.

    It needs no widgets and writes to no stream; the notebook keeps its last state.
    """

    def __init__(self, appears_after: float) -> None:
        self._appears_after = appears_after
        self._is_gone = False
        self._handle: Any = None

    def show(self, figures: Figures, *, is_last: bool = False) -> None:
        if self._is_gone or figures.seconds < self._appears_after:
            return
        states = _states(figures, is_last=is_last)
        # A front end that is gone, or the user's own display, may raise anything.
        try:
            if self._handle is None:
                from IPython.display import display

                self._handle = display(states, raw=True, display_id=True)
            else:
                self._handle.update(states, raw=True)
        except Exception:
            self._is_gone = True


def _states(figures: Figures, *, is_last: bool) -> dict[str, str]:
    """The line by MIME type; without a bar if the number of rows is unknown."""
    done, total = figures.done, figures.total
    ending = "in" if done == total else "stopped after"
    text = figures.line(ending if is_last else None)
    if total is None:
        return {"text/plain": text}
    share = done / total if total else 1.0
    full = int(share * _CELLS)
    bar = "█" * full + "░" * (_CELLS - full)
    return {
        "text/plain": f"{bar} {text}",
        "text/html": _HTML.format(share=share, text=text),
    }
