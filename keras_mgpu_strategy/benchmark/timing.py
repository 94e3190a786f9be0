"""Takes samples of all contenders in turn.

Guarantee: each repetition takes one sample of every contender, starting with another
one each time, so that other load on the machine affects all of them alike.
"""

import gc
import time
from collections.abc import Callable, Sequence
from typing import TypeVar

Name = TypeVar("Name")


def in_turn(
    samples: dict[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """Takes samples of contenders that have run before, so that none still compiles.

    Args:
        samples: Name of a contender -> takes one sample and returns its seconds.
        repetitions: Samples of each.

    Returns:
        Name -> seconds, one for each repetition.
    """
    seconds: dict[str, list[float]] = {name: [] for name in samples}
    for repetition in range(repetitions):
        for name in rotated(list(samples), repetition):
            gc.collect()
            seconds[name].append(samples[name]())
    return seconds


def rotated(names: Sequence[Name], offset: int) -> list[Name]:
    """The names in the same cyclic order, starting `offset` places later."""
    start = offset % max(len(names), 1)
    return [*names[start:], *names[:start]]


def timed(call: Callable[[], object], num_calls: int = 1) -> Callable[[], float]:
    """A sample: the seconds of `num_calls` calls together."""

    def take() -> float:
        started = time.perf_counter()
        for _ in range(num_calls):
            call()
        return time.perf_counter() - started

    return take


def rows_for(
    seconds: float,
    time_of: Callable[[int], float],
    multiple: int,
    most: int,
) -> int:
    """Rows that keep the slowest way to predict busy for about `seconds`.

    Args:
        seconds: Target length.
        time_of: Runs a number of rows and returns the seconds.
        multiple: The result is a positive multiple of this.
        most: More rows than this do not fit into memory.
    """
    rows = multiple
    elapsed = time_of(rows)
    while elapsed < seconds / 4 and rows * 4 <= most:
        rows *= 4
        elapsed = time_of(rows)
    wanted = min(rows * seconds / elapsed, most)
    return max(int(wanted) // multiple, 1) * multiple
