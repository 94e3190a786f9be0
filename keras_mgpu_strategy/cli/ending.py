"""How `mgpu` ends: its exit codes, and its last words.

Bad input exits with 2 and one line, a failed run with 1. Signals end a run after its
chunk: 130, 143, or killed by SIGHUP and those of `--stop_on`; a second one at once. A
run that has begun reports the rows that are safe, and how to resume it.
"""

import contextlib
import os
import re
import shlex
import signal
import sys
import threading
import traceback
from collections.abc import Callable, Iterable, Iterator, Sequence
from pathlib import PurePath
from typing import Any, NoReturn

from keras_mgpu_strategy.cli.printing import (
    SELF_EXPLANATORY,
    complain,
    is_of_tensorflow,
    one_line,
)
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.system.screen import Screen
from keras_mgpu_strategy.system.signals import handled

EXIT_FAILED = 1
EXIT_BROKEN_PIPE = 141
_EXIT_BAD_INPUT = 2
_SECONDS_TO_END = 2.0
_WORDS: dict[int, str] = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
"""Signals after which the exit code is 128 plus their number."""
_RESUME_FLAG = re.compile(r"--?(no)?(resume|overwrite)(=.*)?")


@contextlib.contextmanager
def exit_on_error() -> Iterator[None]:
    """Ends the process with one line and the right exit code for a user's error."""
    try:
        yield
    except BrokenPipeError:  # the output's reader is gone: no input is bad
        raise
    except SELF_EXPLANATORY as error:
        complain(one_line(error))
        sys.exit(_EXIT_BAD_INPUT)
    except KeyboardInterrupt:
        complain("interrupted")
        sys.exit(130)
    except Exception as error:
        if not (isinstance(error, MemoryError) or is_of_tensorflow(error)):
            raise  # our own bug, which needs its traceback
        complain(one_line(error))
        sys.exit(EXIT_FAILED)


def how_far(target: Target, words: Sequence[str]) -> str:
    """How many rows of an output are on disk, and the command that resumes it."""
    program, *rest = words
    starts = [program]
    if PurePath(program).name == "__main__.py":  # Python may name it by its file
        starts = [sys.executable, "-m", "keras_mgpu_strategy"]
    # Without a journal, --resume would refuse what --overwrite should replace.
    if not target.journal.exists():
        return f"No row is safe yet. To start again: {shlex.join([*starts, *rest])}"
    rest = [word for word in rest if not _RESUME_FLAG.fullmatch(word)]
    rest.insert(rest.index("--") if "--" in rest else len(rest), "--resume")
    return f"{_safe_rows(target)} To resume: {shlex.join([*starts, *rest])}"


def _safe_rows(target: Target) -> str:
    with contextlib.suppress(ValueError, OSError):
        journal = target.begun()
        if journal is not None and journal.progress is not None:
            stop = journal.progress.rows
            total = journal.about["run"]["rows of the input"]
            if total is None:
                return f"{stop:,} rows are safe."
            rows = target.shard.rows(total) if target.shard else range(total)
            return f"{stop - rows.start:,} of {len(rows):,} rows are safe."
    return "No row is safe yet."


@contextlib.contextmanager
def reporting(
    safe: Callable[[], str], has_started: Callable[[], bool], own_module: str | None
) -> Iterator[None]:
    """Ends the process, with `safe()`, for errors of a run or in the user's module."""
    try:
        yield
    except Exception as error:
        place = _place(error, own_module)
        if not (has_started() or place):
            raise
        notes = getattr(error, "__notes__", [])
        notes = [note for note in notes if "resume=True" not in note]
        for line in [f"{one_line(error)}{place}", *notes, safe()]:
            complain(line)
        sys.exit(EXIT_FAILED)


def _place(error: Exception, own_module: str | None) -> str:
    """Where in the user's module an error comes from; empty if not from there."""
    file = getattr(sys.modules.get(own_module or ""), "__file__", None)
    frames = traceback.extract_tb(error.__traceback__)
    lines = [frame.lineno for frame in frames if frame.filename == file]
    return f" ({file}, line {lines[-1]})" if file and lines else ""


@contextlib.contextmanager
def stoppable(safe: Callable[[], str], numbers: Iterable[int]) -> Iterator[None]:
    """Ends the process, with `safe()`, within seconds of a signal: rows are on disk."""
    came: list[int] = []

    def stop(number: int, frame: Any) -> NoReturn:
        del frame
        if came:
            _end_at_once(number)
        came.append(number)
        # The requested stop may wait for a slow input.
        limit = threading.Timer(_SECONDS_TO_END, _end_at_once, [number])
        limit.daemon = True
        limit.start()
        word = _WORDS.get(number) or f"stopped by {signal.Signals(number).name}"
        complain(f"{word}. {safe()}")
        if number not in _WORDS:  # not possible outside the main thread
            signal.signal(number, signal.SIG_DFL)
        raise KeyboardInterrupt

    before = {number: signal.signal(number, stop) for number in handled(numbers)}
    try:
        yield
    except KeyboardInterrupt:
        if not came:
            raise
        with contextlib.suppress(AttributeError, OSError, ValueError):
            sys.stdout.flush()
        _end(came[0], sys.exit)
    finally:
        if not came:  # otherwise the process is ending
            for number, handler in before.items():
                signal.signal(number, handler)


def _end_at_once(number: int) -> NoReturn:
    """Ends the process, restoring the cursor that a progress bar may have hidden."""
    if Screen(sys.stderr).isatty():
        with contextlib.suppress(OSError):
            os.write(2, b"\x1b[?25h")
    _end(number, os._exit)


def _end(number: int, leave: Callable[[int], NoReturn]) -> NoReturn:
    if number not in _WORDS:
        with contextlib.suppress(ValueError):  # outside the main thread: done already
            signal.signal(number, signal.SIG_DFL)
        signal.raise_signal(number)
    leave(128 + number)
