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

_made = _collections = 0  # models since that collection
_within = _usual = 0  # threads that let objects add up, and Python's own threshold
_lock = threading.Lock()


def collect() -> None:
    """Frees at once what large things held that were dropped, if Python may collect."""
    if gc.isenabled():
        gc.collect()


def before_a_model() -> None:
    """Collects garbage if ten models were made since it was last collected."""
    global _made, _collections
    collections = gc.get_stats()[-1]["collections"]  # by anyone
    _made = _made + 1 if collections == _collections else 1
    _collections = collections
    if _made > _MOST:
        collect()


@contextlib.contextmanager
def collecting_rarely() -> Iterator[None]:
    """Lets more new objects add up than usual, for as long as a thread is within."""
    global _within, _usual
    with _lock:
        _within += 1
        if _within == 1:
            _usual = gc.get_threshold()[0]
            _set_threshold(_MANY_OBJECTS)
    try:
        yield
    finally:
        with _lock:
            _within -= 1
            if not _within and gc.get_threshold()[0] == _MANY_OBJECTS:
                _set_threshold(_usual)


def _set_threshold(number: int) -> None:
    first, *others = gc.get_threshold()
    if 0 < first <= _MANY_OBJECTS:  # 0 turns collections off
        gc.set_threshold(number, *others)
