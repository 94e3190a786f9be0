"""Threads that pass results to one consumer, and end with it.

All have ended when the iterator is used up, or one has failed. When it is dropped, or
at exit, they end after their chunks. They are not waited for forever: one may be held
up by the user's generator, or by a lock of the thread that waits.
"""

import atexit
import contextlib
import queue
import threading
import time
import weakref
from collections.abc import Callable, Generator, Iterator
from typing import Any, TypeAlias, TypeVar

from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.system.fork_guard import HomeProcess
from keras_mgpu_strategy.types import InputBatch

_MOST_SECONDS = 10.0

T = TypeVar("T")
Work: TypeAlias = Callable[[int, Callable[[T], None]], None]


class ChunkError(Exception):
    """An error of a thread, its cause, and the first row of the chunk at fault."""

    def __init__(self, start: int):
        super().__init__(start)
        self.start = start


@contextlib.contextmanager
def at_fault(chunk: InputBatch) -> Iterator[None]:
    """Turns an error into a `ChunkError` of a chunk."""
    try:
        yield
    except BaseException as error:
        raise ChunkError(chunk.start) from error


def collect(work: Work[T], num_threads: int, feed: Feed, room: int) -> Iterator[T]:
    """Yields what `work` puts in threads; of its errors, raises that of the first row.

    `feed` ends with the iterator; `room` is for results, the consumer's included.
    """
    threads = _Threads(work, num_threads, feed, room)
    results = threads.results()
    # Ends with an iterator that an interrupt drops before its own clean-up.
    threads.forgotten = weakref.finalize(results, threads.end)
    threads.forgotten.atexit = False
    return results


class _Threads:
    """Shared with the consumer, by queues that the garbage collector may always use."""

    forgotten: weakref.finalize  # of the iterator

    def __init__(self, work: Work, num_threads: int, feed: Feed, room: int):
        self._feed = feed
        self._home = HomeProcess()
        self._has_ended = self._is_over = False
        self._done: queue.SimpleQueue[tuple[bool, Any]] = queue.SimpleQueue()
        self._room: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._make_room(room)
        self._threads = [
            threading.Thread(
                target=self._run, args=(work, n), name=f"mgpu-worker-{n}", daemon=True
            )
            for n in range(num_threads)
        ]

    def results(self) -> Generator[Any, None, None]:
        errors: list[BaseException] = []
        try:
            # Daemons: at exit, Python does not wait for them before it calls this.
            atexit.register(self._exit)
            for thread in self._threads:
                thread.start()
            yield from self._until_all_end(errors)
        finally:
            self._finish()
        if errors:
            raise _taken_first(errors)

    def _until_all_end(self, errors: list[BaseException]) -> Iterator[Any]:
        running = len(self._threads)
        while running:
            is_end, item = self._done.get()
            if not is_end:
                yield item
                self._make_room(1)
                continue
            running -= 1
            if item is not None:
                errors.append(item)
                self._feed.stop()
        if self._has_ended:  # by `_exit`, while a user's daemon takes the rows
            raise RuntimeError("The interpreter exits, and rows are left to run.")

    def _run(self, work: Work, number: int) -> None:
        try:
            work(number, self._put)
            self._done.put((True, None))
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            self._done.put((True, None if self._has_ended else error))

    def _put(self, item: Any) -> None:
        self._room.get()
        if not self._has_ended:
            self._done.put((False, item))

    def _make_room(self, num_results: int) -> None:
        for _ in range(num_results):
            self._room.put(None)

    def end(self) -> None:
        """Signals the threads to end; waits for nothing."""
        if self._is_over or not self._home.is_this:
            return
        self._feed.stop()
        self._make_room(len(self._threads))
        self._has_ended = True

    def _finish(self) -> None:
        if self._is_over:  # since the exit of the interpreter
            return
        try:
            self._exit()
        finally:
            if self._has_ended:
                self.forgotten.detach()
            atexit.unregister(self._exit)

    def _exit(self) -> None:
        self.end()
        deadline = time.monotonic() + _MOST_SECONDS
        if self._home.is_this and threading.current_thread() not in self._threads:
            for thread in self._threads:
                if thread.ident is not None:
                    thread.join(max(deadline - time.monotonic(), 0.0))
        self._is_over = True


def _taken_first(errors: list[BaseException]) -> BaseException:
    """The error of the first row; empties the list, which it would keep alive."""
    first = min(errors, key=lambda error: getattr(error, "start", -1))
    errors.clear()
    return (first.__cause__ if isinstance(first, ChunkError) else None) or first
