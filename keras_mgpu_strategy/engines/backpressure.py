"""How far chunks may run ahead of the first one, whose results the others wait for."""

import contextlib
import threading
from collections.abc import Callable, Iterator


class Backpressure:
    """Keeps results that wait for an earlier chunk within `most_rows`."""

    def __init__(self, most_rows: Callable[[], float]):
        self._most_rows = most_rows
        self._begun: set[int] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def admitted(self, start: int) -> Iterator[None]:
        """Waits until a chunk, by its first row, is close enough to the first one."""
        with self._changed:
            self._begun.add(start)
            self._changed.wait_for(lambda: self._is_near(start))
        try:
            yield
        finally:
            with self._changed:
                self._begun.remove(start)
                self._changed.notify_all()

    def _is_near(self, start: int) -> bool:
        ahead = start - min(self._begun)
        return ahead == 0 or ahead <= self._most_rows()
