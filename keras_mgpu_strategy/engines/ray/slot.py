"""The place of one replica: a process, called by several threads.

Guarantee: a thread that asks to be alone with the process is alone, so that nothing
else can have ended it, and nothing else ends with what that thread has it do.
"""

import contextlib
import threading
from collections.abc import Callable, Iterator
from typing import Any

from keras_mgpu_strategy.engines.ray.worker import About


class Slot:
    """A process that is replaced when it dies.

    Attributes:
        actor: Ray's handle of the process; None while there is none.
        about: What the process reported about itself, once it is open.
        is_lost: Whether the process died and could not be replaced.
    """

    def __init__(self, actor: Any):
        self.actor: Any = actor
        self.about: About | None = None
        self.is_lost = False
        self._changed = threading.Condition()
        self._num_calls = 0
        self._is_taken = False

    @contextlib.contextmanager
    def shared(self) -> Iterator[Any]:
        """Waits until no thread is alone with the process; yields the process."""
        with self._when(lambda: not self._is_taken):
            self._num_calls += 1
        try:
            yield self.actor
        finally:
            with self._when(lambda: True):
                self._num_calls -= 1

    @contextlib.contextmanager
    def alone(self) -> Iterator[Any]:
        """Waits until this thread is alone with the process; yields the process."""
        with self._when(lambda: not self._is_taken):
            self._is_taken = True
        try:
            with self._when(lambda: self._num_calls == 0):
                pass
            yield self.actor
        finally:
            with self._when(lambda: True):
                self._is_taken = False

    @contextlib.contextmanager
    def _when(self, is_so: Callable[[], bool]) -> Iterator[None]:
        with self._changed:
            self._changed.wait_for(is_so)
            yield
            self._changed.notify_all()
