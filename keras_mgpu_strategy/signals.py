"""Signals that end a run at a good moment instead of at any.

Guarantee: a signal that came while it was held back reaches whoever handled it
before, once the run has stopped and put its rows on disk.
"""

import contextlib
import signal
import threading
from collections.abc import Iterator
from typing import Any

_SIGNALS = (signal.SIGINT, signal.SIGTERM)


class Held:
    """The signal that has come, if any."""

    def __init__(self) -> None:
        self.signal: int | None = None


@contextlib.contextmanager
def held_back() -> Iterator[Held]:
    """Holds back SIGINT (Ctrl-C) and SIGTERM until the end of the block.

    The block looks at what it is given and ends soon after a signal. A second signal
    is not held back. Signals that are ignored stay so. Outside the main thread, where
    Python handles no signals, nothing is done.
    """
    held = Held()
    if threading.current_thread() is not threading.main_thread():
        yield held
        return
    before: dict[int, Any] = {}

    def hold(number: int, frame: Any) -> None:
        del frame
        held.signal = number
        _restore(before)

    for number in _SIGNALS:
        # None stands for a handler that was not set from Python: it is left alone. So
        # is a signal that is ignored, as in jobs that a shell runs in the background.
        if signal.getsignal(number) not in (None, signal.SIG_IGN):
            before[number] = signal.signal(number, hold)
    try:
        yield held
    finally:
        _restore(before)
        if held.signal is not None:
            signal.raise_signal(held.signal)


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
