"""How `mgpu predict` ends before its output is complete.

Guarantees:

* Ctrl-C and SIGTERM end the run after the current chunk, with exit code 130 or 143.
  SIGHUP and the signals of `--stop_on` also end it there, and then kill the process. A
  second signal ends the process at once.
* Such a run, and one that failed after it had begun, reports how many rows are safe,
  and the command that resumes it.
"""

import contextlib
import dataclasses
import os
import signal
import sys
import threading
import traceback
import warnings
from collections.abc import Callable, Iterable, Iterator
from typing import Any, NoReturn

from keras_mgpu_strategy.cli.printing import complain, one_line
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.system.screen import Screen
from keras_mgpu_strategy.system.signals import handled

EXIT_FAILED = 1
_SECONDS_TO_END = 2.0
_WORDS: dict[int, str] = {
    signal.SIGINT: "interrupted",
    signal.SIGTERM: "terminated",
}
"""Signals after which the exit code is 128 plus their number."""


class Stopped(KeyboardInterrupt):
    """A signal arrived, and the user was told how far the run is.

    Args:
        number: Which.
    """

    def __init__(self, number: int):
        super().__init__(number)
        self.number = number

    def end(self) -> NoReturn:
        """Ends the process as such a signal should."""
        if self.number not in _WORDS:
            with contextlib.suppress(AttributeError, OSError, ValueError):
                sys.stdout.flush()
            signal.raise_signal(self.number)  # its handler is the system's again
        sys.exit(128 + self.number)


class Failed(Exception):
    """A run that had begun and failed; the message says all there is."""


@dataclasses.dataclass(frozen=True)
class Run:
    """A run that may end early.

    Args:
        target: Where its output is.
        shard: Which range of the rows it runs, or None.
        to_resume: The command that resumes it.
        to_repeat: The command that runs it again, if nothing was begun.
    """

    target: Target
    shard: Shard | None
    to_resume: str
    to_repeat: str

    def what_is_safe(self) -> str:
        """How many rows are on disk, and how to resume."""
        # Without a journal, --resume would refuse what --overwrite should replace.
        has_begun = self.target.journal.exists()
        command = self.to_resume if has_begun else self.to_repeat
        return f"{self._safe_rows()} To go on: {command}"

    def _safe_rows(self) -> str:
        with contextlib.suppress(ValueError, OSError):
            journal = self.target.begun()
            if journal is not None and journal.progress is not None:
                total = journal.about["run"]["rows of the input"]
                return self._counted(journal.progress.rows, total)
        return "No row is safe yet."

    def _counted(self, stop: int, total: int | None) -> str:
        if total is None:
            return f"{stop:,} rows are safe."
        rows = range(total) if self.shard is None else self.shard.rows(total)
        return f"{stop - rows.start:,} of {len(rows):,} rows are safe."


@contextlib.contextmanager
def told(
    run: Run, has_begun: Callable[[], bool], own_module: str | None = None
) -> Iterator[None]:
    """Turns an error that ends an incomplete run into `Failed`.

    Args:
        run: The run.
        has_begun: Whether it got beyond the checks of its input.
        own_module: A user's module that takes part in it, or None.

    Raises:
        Failed: The run failed once it had begun, or in a function of the user.
    """
    try:
        yield
    except Exception as error:
        place = _place(error, own_module)
        if not (has_begun() or place):
            raise
        notes = [
            note
            for note in getattr(error, "__notes__", [])
            if "resume=True" not in note
        ]
        lines = [f"{one_line(error)}{place}", *notes, run.what_is_safe()]
        raise Failed("\n".join(lines)) from error


@contextlib.contextmanager
def stoppable(run: Run, numbers: Iterable[int]) -> Iterator[None]:
    """Raises `Stopped` for some signals, unless they are ignored.

    By then the run's rows are on disk, or it is the second signal; so the process
    reports how far the run is and ends within seconds, whatever its threads wait for.

    Args:
        run: The run.
        numbers: Of the signals.
    """
    before: dict[int, Any] = {}
    has_come = False

    def stop(number: int, frame: Any) -> NoReturn:
        nonlocal has_come
        del frame
        if has_come:
            _end(number)
        has_come = True
        # The requested stop may wait for a slow input.
        limit = threading.Timer(_SECONDS_TO_END, _end, [number])
        limit.daemon = True
        limit.start()
        _say(number, run.what_is_safe())
        if number not in _WORDS:
            signal.signal(number, signal.SIG_DFL)
        raise Stopped(number)

    for number in handled(numbers):
        before[number] = signal.signal(number, stop)
    try:
        yield
    finally:
        if not has_come:  # otherwise the process is ending
            for number, handler in before.items():
                signal.signal(number, handler)


@contextlib.contextmanager
def plain_warnings() -> Iterator[None]:
    """Prints warnings for users as lines like those of errors."""

    def show(message: Any, category: Any, *rest: Any) -> None:
        if not issubclass(category, UserWarning):
            return before(message, category, *rest)
        complain(f"warning: {' '.join(str(message).split())}")

    with warnings.catch_warnings():
        before = warnings.showwarning
        warnings.showwarning = show
        yield


def _end(number: int) -> NoReturn:
    """Ends the process, restoring the cursor that a progress bar may have hidden."""
    if Screen(sys.stderr).isatty():
        with contextlib.suppress(OSError):
            os.write(2, b"\x1b[?25h")
    if number not in _WORDS:
        with contextlib.suppress(ValueError):  # outside the main thread
            signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    os._exit(128 + number)


def _say(number: int, how_far: str) -> None:
    word = _WORDS.get(number) or f"stopped by {signal.Signals(number).name}"
    complain(f"{word}. {how_far}")


def _place(error: Exception, own_module: str | None) -> str:
    """Where in the user's module an error comes from; empty if not from there."""
    file = getattr(sys.modules.get(own_module or ""), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f" ({file}, line {lines[-1]})" if file and lines else ""
