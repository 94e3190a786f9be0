"""Passes the batches of a run on, and shows how far it is.

```
batch passes on -> whoever takes it asks for the next -> its rows count as done
                  at most four times a second: StageClock -> Meter -> bar or lines
```

Guarantees:

* Batches pass on as they are, and none is kept.
* Showing never ends a run: a stream that is missing, closed or gone is left alone.
* However a run ends, its bar ends and the terminal has its cursor back.
* No thread is started: the display updates when a batch passes.
"""

import sys
import time
from collections.abc import Callable, Generator, Iterable
from typing import TextIO

from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.callbacks import Verbose, check_verbose
from keras_mgpu_strategy.runs.progress.displays import Bar, Display, Lines
from keras_mgpu_strategy.runs.progress.meter import Meter, RowRange
from keras_mgpu_strategy.system.screen import Screen
from keras_mgpu_strategy.types import HostBatch

# Drawing a bar takes some milliseconds on the host, which also feeds the devices.
_SECONDS_BETWEEN_LOOKS = 0.25


def show_progress(
    batches: Iterable[HostBatch],
    rows: RowRange,
    clock: StageClock,
    verbose: Verbose = "auto",
    *,
    description: str = "predicting",
    stream: TextIO | None = None,
    now: Callable[[], float] = time.monotonic,
) -> Generator[HostBatch, None, None]:
    """Passes batches on and shows how far the run is.

    Close the iterator if it is not read to its end: that ends the bar.

    Args:
        batches: The results, starting at about row `rows.start`.
        rows: What is to be done.
        clock: Where the time goes, which shows the bottleneck.
        verbose: 0 silent, 1 a live bar, 2 a line every 30 seconds and one at the end,
            "auto" 1 on a terminal and 2 elsewhere.
        description: What the bar calls the run.
        stream: Where to show it; None for standard error.
        now: Returns the time in seconds.

    Returns:
        Generator of the same batches.

    Raises:
        ValueError: `verbose` is none of these; raised at once.
        ImportError: A bar should be shown and rich is not installed; raised at once.
    """
    screen = Screen(sys.stderr if stream is None else stream)
    level = _level(verbose, screen)
    if level == 0:
        return (batch for batch in batches)
    display = Bar(screen, description) if level == 1 else Lines(screen)
    return _shown(batches, rows.start, Meter(rows, clock), display, now)


def _level(verbose: Verbose, screen: Screen) -> int:
    # The log of a long run should show how far it is; that of `predict` need not.
    if verbose == "auto":
        return 1 if screen.isatty() else 2
    return check_verbose(verbose)


def _shown(
    batches: Iterable[HostBatch],
    row: int,
    meter: Meter,
    display: Display,
    now: Callable[[], float],
) -> Generator[HostBatch, None, None]:
    began = looked = now()
    taken: HostBatch | None = None
    is_complete = False
    try:
        display.begin(meter.look(row, 0.0))
        for batch in batches:
            row, taken = batch.start, None
            yield batch
            taken, moment = batch, now()
            if moment - looked >= _SECONDS_BETWEEN_LOOKS:
                looked = moment
                display.update(meter.look(batch.stop, moment - began))
        is_complete = True
    finally:
        row = row if taken is None else taken.stop
        display.end(meter.last(row, now() - began, is_complete=is_complete))
