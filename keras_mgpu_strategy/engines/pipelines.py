"""A distributed tf.data pipeline over a feed: one pipeline per replica.

Of R pipelines, the r-th gets chunks r, r + R and so on. After its last chunk, a replica
gets idle elements, so that all step together to the end; so it does where rows of
another length follow within a round. Errors stay in the feed, as tf.data changes them.
"""

import functools
import threading
import weakref
from collections import deque
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import example_inputs
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.feed import Feed, noted, padded
from keras_mgpu_strategy.engines.running import Chunks, busy, on_host
from keras_mgpu_strategy.types import InputBatch, cut


class Rounds:
    """Hands out chunks, one for each replica at a time, to any thread."""

    def __init__(
        self,
        feed: Feed,
        context: Context,
        batch_size: int,
        chunk_rows: Callable[[], int],
        strategy: tf.distribute.Strategy,
    ):
        self._feed = feed
        self._context = context
        self._batch_size = batch_size
        self._ask_chunk_rows = chunk_rows
        self._strategy = strategy
        self.element_spec: tuple[Any, ...] = ()
        self._elements: Any = None
        self._has_ended = False
        self._lock = threading.Lock()
        self._chunk_rows = 0
        example = tf.nest.flatten(example_inputs(context.spec, 1))
        self._idle = np.int64(-1), np.int64(0), *example
        self._dealt = [deque[InputBatch | None]() for _ in context.devices]
        self._next_replica = 0
        self._length = 1  # of the rows of the round being dealt
        self._is_reading = False
        self._changed = threading.Condition()

    def next(self) -> Chunks | None:
        """A chunk for each replica, some of which may idle; None at the end."""
        with self._lock:
            if self._has_ended or self._feed.is_stopped:
                return None
            # Not in the main thread, where Ctrl-C could break TensorFlow's tracing.
            self._elements = self._elements or self._open()
            with self._context.clock.stage("input"):
                element = next(self._elements)
            leaves = map(self._strategy.experimental_local_results, element)
            chunks = []
            for start, num_rows, *inputs in zip(*leaves, strict=True):
                nest = tf.nest.pack_sequence_as(self._context.spec, inputs)
                chunks.append(InputBatch(int(start), int(num_rows), nest))
            return _filled(chunks) if busy(chunks) else None

    def end(self) -> None:
        """Releases the pipelines and their threads; no round follows."""
        with self._lock:
            self._has_ended, self._elements = True, None

    def take(self, replica: int) -> tuple[Any, ...]:
        """A pipeline's next element: start (-1 if idle), rows, then the flat inputs."""
        chunk = self._next_chunk(self._dealt[replica])
        if chunk is None:
            return self._idle
        try:
            with noted(chunk):
                chunk = self._context.ready(chunk, self._batch_size)
        except Exception as error:  # noqa: BLE001 - raised by the engine
            self._feed.error = self._feed.error or error
            return self._idle
        size = self._context.micro_batch(chunk.inputs, self._batch_size)
        return np.int64(chunk.start), np.int64(chunk.num_rows), *padded(chunk, size)

    def _next_chunk(self, mine: deque[InputBatch | None]) -> InputBatch | None:
        while True:
            with self._changed:
                self._changed.wait_for(lambda: mine or not self._is_reading)
                if mine:
                    return mine.popleft()
                self._is_reading = True
            if not self._deal_one():
                return None

    def _deal_one(self) -> bool:
        chunk = None
        try:
            if self._next_replica == 0:
                self._chunk_rows = self._ask_chunk_rows()
            chunk = self._feed.take(self._chunk_rows)
        finally:
            with self._changed:
                self._is_reading = False
                if chunk is not None:
                    self._deal(chunk)
                self._changed.notify_all()
        return chunk is not None

    def _deal(self, chunk: InputBatch) -> None:
        """Gives a chunk to the next replica; a round has rows of one length only."""
        length, dealt = self._context.tokens.length(chunk.inputs), self._dealt
        if self._next_replica and length != self._length:
            for idle in dealt[self._next_replica :]:
                idle.append(None)
            self._next_replica = 0
        self._length = length
        dealt[self._next_replica].append(chunk)
        self._next_replica = (self._next_replica + 1) % len(dealt)

    def _open(self) -> Any:
        # TensorFlow keeps forever what is passed to `numpy_function`, and a dataset
        # the function that made it: neither may hold the rows, nor this object.
        take, specs = weakref.WeakMethod(self.take), tf.nest.flatten(self._context.spec)
        dataset = self._strategy.distribute_datasets_from_function(
            functools.partial(_replica_dataset, take, specs),
            tf.distribute.InputOptions(
                experimental_fetch_to_device=False,
                experimental_replication_mode=(
                    tf.distribute.InputReplicationMode.PER_REPLICA
                ),
                experimental_place_dataset_on_device=False,
            ),
        )
        elements, self.element_spec = iter(dataset), dataset.element_spec
        self._context.clock.start()
        return elements


def _filled(chunks: Chunks) -> Chunks:
    """A round in which idle replicas run a row of another one."""
    if len(busy(chunks)) == len(chunks):
        return chunks
    row = cut(on_host(busy(chunks)[0]).inputs, 0, 1)
    idle = InputBatch(-1, 0, row)
    return [idle if chunk.start < 0 else chunk for chunk in chunks]


def _replica_dataset(
    take: weakref.WeakMethod,
    specs: Sequence[tf.TensorSpec],
    context: tf.distribute.InputContext,
) -> tf.data.Dataset:
    mine = functools.partial(_take_from, take, context.input_pipeline_id)
    dtypes = [tf.int64, tf.int64, *(spec.dtype for spec in specs)]

    def element(_: tf.Tensor) -> tuple[tf.Tensor, ...]:
        start, num_rows, *inputs = tf.numpy_function(mine, [], dtypes)
        for leaf, spec in zip(inputs, specs, strict=True):
            # Only the rank: in some sources rows of another length follow.
            leaf.set_shape([None] * spec.shape.rank)
        return tf.ensure_shape(start, []), tf.ensure_shape(num_rows, []), *inputs

    options = tf.data.Options()
    # The autotuner's thread sleeps, and closing the iterator waits for it.
    options.autotune.enabled = False
    # A pool of its own: the source may itself need threads of the shared one.
    options.threading.private_threadpool_size = 1
    return tf.data.Dataset.counter().map(element).prefetch(2).with_options(options)


def _take_from(take: weakref.WeakMethod, replica: int) -> tuple[Any, ...]:
    alive = take()
    assert alive is not None, "its run has ended"
    return alive(replica)
