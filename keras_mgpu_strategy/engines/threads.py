"""One thread of control per device, each taking the next chunk when it is free.

Guarantees, beyond those of every engine:

* A device computes one chunk at a time, while a second one is on its way in or out.
* No replica waits for another: a slow device takes fewer chunks.
"""

import queue
import threading
from collections.abc import Iterator
from contextlib import suppress

import tensorflow as tf

from keras_mgpu_strategy import gather, heads
from keras_mgpu_strategy.batch_size import ceil_div, micro_batches_per_chunk
from keras_mgpu_strategy.feed import Chunk, Feed, row_bytes
from keras_mgpu_strategy.signatures import SpecMemory
from keras_mgpu_strategy.step import Signature, StepCompiler
from keras_mgpu_strategy.types import HostBatch, Source

_LANES_PER_DEVICE = 2


class ThreadsEngine:
    """Runs each replica's own compiled step from threads of its own.

    The flow, for each device d:

        lane:                          # two threads per device
            while (chunk = feed.take()):
                tensors = copy to d
                with d's lock: outputs = step[d](tensors)
                done.put(read from d, trimmed)

    and in the caller's thread: `yield from in_order(done)`.

    Args:
        compiler: Makes and keeps the compiled steps.
        specs: The input specs seen so far.
        head: What is done to the outputs on the device.
    """

    def __init__(self, compiler: StepCompiler, specs: SpecMemory, head: heads.Head):
        self._compiler = compiler
        self._specs = specs
        self._head = head
        self._devices = tuple(compiler.strategy.extended.worker_devices)

    def run(
        self, source: Source, batch_size: int, start: int = 0
    ) -> Iterator[HostBatch]:
        """Yields results in input order; see `Engine.run`."""
        micro_batches = micro_batches_per_chunk(
            batch_size, row_bytes(source.spec), source.num_rows, len(self._devices)
        )
        self._specs.cover(source.spec)
        feed = Feed(source, batch_size, micro_batches, start)
        if source.num_rows is not None and source.num_rows - start <= batch_size:
            return self._run_here(feed, batch_size)
        num_lanes = len(self._devices) * _LANES_PER_DEVICE
        if source.num_rows is not None:
            num_chunks = ceil_div(source.num_rows - start, batch_size * micro_batches)
            num_lanes = min(num_lanes, num_chunks)
        return gather.in_order(self._run_lanes(feed, batch_size, num_lanes), start)

    def _run_here(self, feed: Feed, batch_size: int) -> Iterator[HostBatch]:
        """The only chunk on the first replica, without any thread."""
        chunk = feed.take()
        if chunk is not None:
            yield self._run_chunk(chunk, batch_size, 0, threading.Lock())
        if feed.error is not None:
            raise feed.error

    def _run_lanes(
        self, feed: Feed, batch_size: int, num_lanes: int
    ) -> Iterator[HostBatch]:
        done: queue.Queue = queue.Queue(maxsize=num_lanes)
        locks = [threading.Lock() for _ in self._devices]

        def lane(replica: int) -> None:
            try:
                while (chunk := feed.take()) is not None:
                    done.put(
                        self._run_chunk(chunk, batch_size, replica, locks[replica])
                    )
                done.put(None)
            except BaseException as error:  # noqa: BLE001 - raised again by the caller
                done.put(error)

        threads = [
            threading.Thread(
                target=lane,
                args=(number % len(self._devices),),
                name=f"mgpu-lane-{number}",
                daemon=True,
            )
            for number in range(num_lanes)
        ]
        yield from _collect(feed, done, threads)

    def _run_chunk(
        self, chunk: Chunk, batch_size: int, replica: int, lock: threading.Lock
    ) -> HostBatch:
        spec = self._specs.cover(chunk.inputs)
        signature = Signature(spec, batch_size, self._head)
        step = self._compiler.replica_steps(signature)[replica]
        with tf.device(self._devices[replica]):
            flat = [tf.convert_to_tensor(a) for a in tf.nest.flatten(chunk.inputs)]
            with lock:
                outputs = step(*flat)
        return gather.to_host(outputs, chunk.start, chunk.num_rows, len(flat[0]))


def _collect(
    feed: Feed, done: queue.Queue, threads: list[threading.Thread]
) -> Iterator[HostBatch]:
    """Yields what the lanes put; whatever happens, all of them end before it does."""
    running = len(threads)
    error = None
    for thread in threads:
        thread.start()
    try:
        while running:
            item = done.get()
            running -= not isinstance(item, HostBatch)
            if isinstance(item, HostBatch):
                yield item
            elif item is not None:
                # Chunks in flight on other devices may come before the failed one.
                error = error or item
                feed.close()
    finally:
        with suppress(Exception):
            feed.close()
        while running:
            running -= not isinstance(done.get(), HostBatch)
        for thread in threads:
            thread.join()
    if error or feed.error:
        raise error or feed.error
