"""Threads that hand batches to one consumer, and end with it.

Guarantee: when the iterator is used up, closed or fails, all threads have ended.
"""

import contextlib
import queue
import threading
from collections.abc import Callable, Generator, Iterator

from keras_mgpu_strategy.feed import Feed
from keras_mgpu_strategy.types import HostBatch


class ChunkError(Exception):
    """An error of a lane, its cause, and the first row of the chunk that it met.

    Args:
        start: Index of that row.
    """

    def __init__(self, start: int):
        super().__init__(start)
        self.start = start


def collect(
    lane: Callable[[int], None], num_lanes: int, feed: Feed, done: queue.Queue
) -> Iterator[HostBatch]:
    """Runs lanes in threads and yields what they put into a queue.

    Args:
        lane: Called with its number in a thread of its own; returns when the feed has
            ended. Its error closes the feed. When the other lanes have handed over what
            they had in hand, since those rows may come before, the error of the first
            row is raised: the cause of a `ChunkError`, or any other error at once.
        num_lanes: Number of threads.
        feed: Closed at the end, so that no lane takes another chunk.
        done: Where the lanes put batches.
    """

    def run(number: int) -> None:
        try:
            lane(number)
            done.put(None)
        except BaseException as error:  # noqa: BLE001 - raised again by the consumer
            done.put(error)

    threads = [
        threading.Thread(target=run, args=(number,), name=f"mgpu-lane-{number}")
        for number in range(num_lanes)
    ]
    errors = yield from _until_all_end(done, threads, feed)
    if errors:
        first = min(errors, key=lambda error: getattr(error, "start", -1))
        raise (first.__cause__ if isinstance(first, ChunkError) else None) or first


def _until_all_end(
    done: queue.Queue, threads: list[threading.Thread], feed: Feed
) -> Generator[HostBatch, None, list[BaseException]]:
    running, errors = 0, []
    try:
        for thread in threads:
            thread.daemon = True
            thread.start()
            running += 1
        while running:
            item = done.get()
            if isinstance(item, HostBatch):
                yield item
                continue
            running -= 1
            if item is not None:
                errors.append(item)
                feed.close()
        return errors
    finally:
        with contextlib.suppress(Exception):
            feed.close()
        while running:
            running -= not isinstance(done.get(), HostBatch)
        for thread in threads:
            if thread.ident is not None:
                thread.join()
