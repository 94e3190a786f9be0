"""When Python looks for garbage: around models, neither too late nor too often.

Models of Keras and graphs of TensorFlow are cycles of few Python objects that hold much
other memory: Python alone would collect them only after dozens of models. While one is
made or traced, its many new objects stay, but make Python look through all there are,
which takes 0.2 s with TensorFlow and Keras loaded.
"""

import contextlib
import gc
import threading
from collections.abc import Iterator

_MOST = 10
_MANY_OBJECTS = 100_000


def collect() -> None:
    """Frees at once what large things held that were dropped, if Python may collect."""
    if gc.isenabled():
        gc.collect()


class _Models:
    """How many were made since all garbage was collected, by anyone."""

    def __init__(self) -> None:
        self._made = self._collections = 0

    def before_one(self) -> None:
        """Collects garbage if ten models were made since it was last collected."""
        collections = gc.get_stats()[-1]["collections"]
        if collections != self._collections:
            self._made, self._collections = 0, collections
        self._made += 1
        if self._made > _MOST:
            collect()


before_a_model = _Models().before_one


class _Patience:
    """Lets more new objects add up than usual, for as long as a thread is within."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._within = 0
        self._usual = gc.get_threshold()

    @contextlib.contextmanager
    def __call__(self) -> Iterator[None]:
        with self._lock:
            self._within += 1
            if self._within == 1:
                self._usual = gc.get_threshold()
                self._set_first(_MANY_OBJECTS)
        try:
            yield
        finally:
            with self._lock:
                self._within -= 1
                if not self._within and gc.get_threshold()[0] == _MANY_OBJECTS:
                    self._set_first(self._usual[0])

    def _set_first(self, number: int) -> None:
        first, *others = gc.get_threshold()
        if 0 < first <= _MANY_OBJECTS:  # 0 turns collections off
            gc.set_threshold(number, *others)


collecting_rarely = _Patience()
