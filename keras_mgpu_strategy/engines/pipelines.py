"""A distributed tf.data pipeline over a feed: one pipeline per replica.

Guarantees:

* Chunks are dealt in turn: of R pipelines, the r-th gets chunks r, r + R, r + 2R
  and so on, however far each reads ahead. Arrays are sliced a chunk at a time and
  never become one tensor.
* One pipeline reads at a time; while it waits for a slow source, the others still
  get the chunks that were dealt to them.
* Elements never end: after the last chunk a replica gets idle ones (one micro-batch
  of rows that were run before), so that all replicas step together to the end, and
  none ever runs on 0 rows.
* An error of the source or of preprocessing does not pass through tf.data, which would
  turn it into a TensorFlow error; it ends the pipelines and stays in the feed.
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
from keras_mgpu_strategy.engines.feed import Chunk, Feed
from keras_mgpu_strategy.types import Nest


class ReplicaPipelines:
    """The distributed dataset of a feed.

    Each element is a flat tuple `(start, num_rows, *inputs)`; `start` is -1 if the
    feed has ended.

    Args:
        feed: The chunks.
        spec: Nest of `tf.TensorSpec` of the inputs.
        batch_size: Rows of a micro-batch.
        chunk_rows: Gives the most rows of a chunk; asked when each replica has got one.
        strategy: The strategy whose replicas are fed.
        ready: Returns a chunk as the model is given it, for a batch size; called by
            the pipelines of several replicas at once.
    """

    def __init__(
        self,
        feed: Feed,
        spec: Nest,
        batch_size: int,
        chunk_rows: Callable[[], int],
        strategy: tf.distribute.Strategy,
        ready: Callable[[Chunk, int], Chunk] = lambda chunk, batch_size: chunk,
    ):
        self._ready = ready
        self.spec = spec
        self._feed = feed
        self._specs = tf.nest.flatten(spec)
        self._batch_size = batch_size
        self._ask_chunk_rows = chunk_rows
        self._chunk_rows = 0
        self._idle = tf.nest.flatten(example_inputs(spec, batch_size))
        self._dealt: list[deque[Chunk]] = []
        self._next = 0
        self._is_reading = False
        self._changed = threading.Condition()
        # TensorFlow keeps forever what is passed to `numpy_function`, and a dataset
        # the function that made it: neither may hold the rows, nor this object.
        make = functools.partial(_replica_dataset, weakref.ref(self), self._specs)
        self.dataset = _distribute(make, strategy)

    def add_replica(self) -> int:
        """Has chunks dealt to one more replica; returns its index."""
        self._dealt.append(deque())
        return len(self._dealt) - 1

    def take(self, replica: int) -> tuple[Any, ...]:
        """The next element of a replica's pipeline, which calls this in a thread."""
        chunk = self._next_chunk(self._dealt[replica])
        chunk = None if chunk is None else self._ready_or_none(chunk)
        if chunk is None:
            return np.int64(-1), np.int64(0), *self._idle
        inputs = chunk.padded(self._batch_size)
        self._idle = [leaf[: self._batch_size] for leaf in inputs]
        return np.int64(chunk.start), np.int64(chunk.num_rows), *inputs

    def _ready_or_none(self, chunk: Chunk) -> Chunk | None:
        try:
            return self._ready(chunk, self._batch_size)
        except Exception as error:  # noqa: BLE001 - kept for the engine to raise
            self._feed.fail(error, chunk)
            return None

    def _next_chunk(self, mine: deque[Chunk]) -> Chunk | None:
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
            if self._next == 0:
                self._chunk_rows = self._ask_chunk_rows()
            chunk = self._feed.take(self._chunk_rows)
        finally:
            with self._changed:
                self._is_reading = False
                if chunk is not None:
                    self._dealt[self._next].append(chunk)
                    self._next = (self._next + 1) % len(self._dealt)
                self._changed.notify_all()
        return chunk is not None


def _replica_dataset(
    pipelines: weakref.ref[ReplicaPipelines],
    specs: Sequence[tf.TensorSpec],
    _: tf.distribute.InputContext,
) -> tf.data.Dataset:
    mine = functools.partial(_take_from, pipelines, _alive(pipelines).add_replica())
    dtypes = [tf.int64, tf.int64, *(spec.dtype for spec in specs)]

    def take(_: tf.Tensor) -> tuple[tf.Tensor, ...]:
        start, num_rows, *inputs = tf.numpy_function(mine, [], dtypes)
        for leaf, spec in zip(inputs, specs, strict=True):
            # Only the rank: in some sources rows of another length follow.
            leaf.set_shape([None] * spec.shape.rank)
        return tf.ensure_shape(start, []), tf.ensure_shape(num_rows, []), *inputs

    dataset = tf.data.Dataset.counter().map(take).prefetch(2)
    return dataset.with_options(_options())


def _take_from(
    pipelines: weakref.ref[ReplicaPipelines], replica: int
) -> tuple[Any, ...]:
    return _alive(pipelines).take(replica)


def _alive(pipelines: weakref.ref[ReplicaPipelines]) -> ReplicaPipelines:
    alive = pipelines()
    assert alive is not None, "its run has ended"
    return alive


def _options() -> tf.data.Options:
    options = tf.data.Options()
    # The autotuner's thread sleeps, and closing the iterator waits for it.
    options.autotune.enabled = False
    # A pool of its own: the source may itself need threads of the shared one.
    options.threading.private_threadpool_size = 1
    return options


def _distribute(dataset_fn: Any, strategy: tf.distribute.Strategy) -> Any:
    return strategy.distribute_datasets_from_function(
        dataset_fn,
        tf.distribute.InputOptions(
            experimental_fetch_to_device=False,
            experimental_replication_mode=(
                tf.distribute.InputReplicationMode.PER_REPLICA
            ),
            experimental_place_dataset_on_device=False,
        ),
    )
