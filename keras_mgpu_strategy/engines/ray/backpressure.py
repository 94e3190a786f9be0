"""Keeps results from piling up while an earlier chunk is late.

Guarantee: the first of the chunks that have begun is never held back.
"""

import contextlib
import threading
from collections.abc import Iterator


class Window:
    """How far chunks may run ahead of the first one that is not done.

    Args:
        most_bytes: Results that may wait for it.
    """

    def __init__(self, most_bytes: int):
        self._most_bytes = most_bytes
        self._row_bytes = 0.0
        self._begun: set[int] = set()
        self._changed = threading.Condition()

    @contextlib.contextmanager
    def admitted(self, start: int) -> Iterator[None]:
        """Waits until a chunk is close enough to the first that is not done.

        Args:
            start: Its first row.
        """
        with self._changed:
            self._begun.add(start)
            self._changed.wait_for(lambda: self._is_near(start))
        try:
            yield
        finally:
            with self._changed:
                self._begun.remove(start)
                self._changed.notify_all()

    def learn(self, num_rows: int, num_bytes: int) -> None:
        """Learns how large results are."""
        if num_rows:
            self._row_bytes = num_bytes / num_rows

    def _is_near(self, start: int) -> bool:
        ahead = start - min(self._begun)
        return ahead == 0 or ahead * self._row_bytes <= self._most_bytes
