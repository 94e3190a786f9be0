"""Signals that end a run at a safe point instead of anywhere.

A signal that is held back reaches its handler once the run's rows are on disk.
"""

import contextlib
import dataclasses
import signal
import threading
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

_ALWAYS = ("SIGINT", "SIGTERM", "SIGHUP")
# What schedulers send some time before they kill a job.
_ON_DEMAND = ("SIGUSR1", "SIGUSR2", "SIGXCPU", "SIGQUIT")


@dataclasses.dataclass
class Held:
    """The signal that has come, if any."""

    signal: int | None = None


def stopping_signals(stop_on: str | Sequence[str]) -> tuple[int, ...]:
    """Returns SIGINT, SIGTERM, SIGHUP and those of `stop_on`, such as "USR1"."""
    names = (stop_on,) if isinstance(stop_on, str) else stop_on
    if not isinstance(names, (list, tuple)):
        raise TypeError(
            f"Received stop_on={stop_on!r:.80}, expected the name of a signal, such as "
            "'USR1', or a list of names."
        )
    wanted = dict.fromkeys([*_ALWAYS, *(_checked(name) for name in names)])
    return tuple(int(getattr(signal, n)) for n in wanted if hasattr(signal, n))


@contextlib.contextmanager
def held_back(numbers: Iterable[int]) -> Iterator[Held]:
    """Holds back signals until the end of the block, which must end soon after one.

    A second signal is not held back. Ignored signals stay ignored. Outside the main
    thread nothing is done.
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

    for number in handled(numbers):
        before[number] = signal.signal(number, hold)
    try:
        yield held
    finally:
        _restore(before)
        if held.signal is not None:
            signal.raise_signal(held.signal)


def handled(numbers: Iterable[int]) -> list[int]:
    """Those of the given signals that Python handles, and does not ignore."""
    return [n for n in numbers if signal.getsignal(n) not in (None, signal.SIG_IGN)]


def _checked(name: object) -> str:
    full = f"SIG{str(name).upper().removeprefix('SIG')}"
    known = [n for n in (*_ALWAYS, *_ON_DEMAND) if hasattr(signal, n)]
    if full not in known:
        raise ValueError(
            f"Received stop_on={name!r:.40}, expected one or several of "
            f"{', '.join(n.removeprefix('SIG') for n in known)}."
        )
    return full


def _restore(before: dict[int, Any]) -> None:
    for number, handler in before.items():
        signal.signal(number, handler)
