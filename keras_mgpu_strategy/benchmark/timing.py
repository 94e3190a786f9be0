"""Takes samples of all contenders in turn, so that other load affects all alike."""

import gc
import time
from collections.abc import Callable, Mapping


def in_turn(
    samples: Mapping[str, Callable[[], float]], repetitions: int
) -> dict[str, list[float]]:
    """Takes samples, in seconds, by functions that have run before."""
    names = list(samples)
    seconds: dict[str, list[float]] = {name: [] for name in names}
    for repetition in range(repetitions):
        first = repetition % max(len(names), 1)
        for name in [*names[first:], *names[:first]]:
            gc.collect()
            seconds[name].append(samples[name]())
    return seconds


def seconds_of(call: Callable[[], object], num_calls: int = 1) -> float:
    """The seconds of `num_calls` calls together."""
    started = time.perf_counter()
    for _ in range(num_calls):
        call()
    return time.perf_counter() - started


def rows_for(
    seconds: float, time_of: Callable[[int], float], multiple: int, most: int
) -> int:
    """A multiple of rows for which `time_of` returns about `seconds`, or `most`."""
    rows = multiple
    elapsed = time_of(rows)
    while elapsed < seconds / 4 and rows * 4 <= most:
        rows *= 4
        elapsed = time_of(rows)
    wanted = min(rows * seconds / elapsed, most)
    return max(int(wanted) // multiple, 1) * multiple
