"""What engines share: a feed, chunks run in pieces that fit into memory, and times.

An engine knows the model and the devices; it is given rows and returns rows. It knows
neither where rows come from nor where results go.
"""

import contextlib
import time
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.engines.adaptive_batch import (
    BatchSize,
    Plan,
    Probe,
    is_out_of_memory,
)
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.feed import Feed, split
from keras_mgpu_strategy.engines.track import Track, Turn
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import HostBatch, InputBatch, Nest, Source

_TRIED_BYTES = 1 << 20

Chunks: TypeAlias = Sequence[InputBatch]
"""One chunk for each device; a start of -1 says that a device idles."""
Ran: TypeAlias = tuple[list[HostBatch], int]
"""Results, and the bytes that a device needed for inputs and to join outputs."""


class Engine:
    """Runs a model over the rows of a source on every replica.

    * Each row from `start` onwards is in exactly one of the batches yielded, and the
      batches come in the order of their rows.
    * No replica calls the model on 0 rows. Every call has `batch_size` rows; the
      last one is padded and its results are trimmed.
    * When the iterator is closed or fails, no thread is left running.
    """

    searches = False  # whether it may change the step during a run

    def __init__(self, context: Context, begin_run: Callable[[], None]):
        self._context = context
        self._begin_run = begin_run

    def run(
        self, source: Source, batch_size: int, start: int = 0
    ) -> Iterator[HostBatch]:
        """Yields results in input order; `batch_size` is per replica."""
        context = self._context
        self._begin_run()
        context.specs.cover(context.spec)
        batch = context.batch(batch_size)
        context.clock.begin_step(batch.step, is_settled=not self.searches)
        most_rows = context.most_rows(batch_size, source.num_rows)

        def rows_of(inputs: Nest, rows: int) -> int:
            return context.chunk_of(inputs, batch.size, rows)

        with (
            contextlib.closing(Feed(source, most_rows, start, rows_of)) as feed,
            contextlib.closing(self._batches(feed, batch, most_rows)) as batches,
        ):
            yield from gather.in_order(batches, start)

    def _batches(
        self, feed: Feed, batch: BatchSize, most_rows: int
    ) -> Generator[HostBatch, None, None]:
        """Yields results in any order."""
        raise NotImplementedError


def busy(chunks: Chunks) -> list[InputBatch]:
    """The chunks of the devices that do not idle, that of the first row first."""
    return [chunk for chunk in chunks if chunk.start >= 0]


def run_fitting(
    chunks: Chunks,
    attempt: Callable[[Chunks, Plan, Turn], Ran],
    batch: BatchSize,
    track: Track,
    context: Context,
    devices: Sequence[str],
) -> list[HostBatch]:
    """Returns the results of pieces of the chunks, those of each device in order."""
    results: list[HostBatch] = []
    rest: Chunks | None = chunks
    while rest is not None:
        with track.turn(lambda: batch.plan.held) as turn:
            plan = batch.plan
            pieces, others = _split(rest, plan, context)
            probe = Probe(devices) if plan.is_measured else None
            try:
                batches, moved = attempt(pieces, plan, turn)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                size = context.micro_batch(pieces[0].inputs, plan.size)
                batches = max(ceil_div(piece.num_rows, size) for piece in pieces)
                batch.shrink(plan, batches * plan.size, busy(pieces)[0].start, error)
                continue
            results += batches
            rest = others
            if probe is not None:
                batch.learn(plan, probe.reading(moved))
    return results


def _split(
    chunks: Chunks, plan: Plan, context: Context
) -> tuple[Chunks, Chunks | None]:
    """The first rows for each device, and the others; None if there are none."""
    if plan.chunk_rows is None:
        return chunks, None
    num_rows = context.chunk_of(chunks[0].inputs, plan.size, plan.chunk_rows)
    if max(chunk.num_rows for chunk in chunks) <= num_rows:
        return chunks, None
    parts = [split(on_host(chunk), num_rows) for chunk in chunks]
    firsts = [first for first, _ in parts]
    return firsts, [rest or InputBatch(-1, 0, first.inputs) for first, rest in parts]


def on_host(chunk: InputBatch) -> InputBatch:
    """A chunk of arrays, without its padding."""
    rows = max(chunk.num_rows, 1)
    arrays = tf.nest.map_structure(lambda leaf: np.asarray(leaf)[:rows], chunk.inputs)
    return InputBatch(chunk.start, chunk.num_rows, arrays)


def note_stages(
    context: Context,
    plan: Plan,
    replica: int,
    turn: Turn,
    num_rows: float,
    bytes_out: int,
    *,
    count: int = 1,
    least_seconds: float = 0.0,
) -> None:
    """Records the stages of a chunk, padding included, that `count` replicas ran."""
    ended, clock, sizes = time.perf_counter(), context.clock, context.chunk_sizes
    device = context.devices[replica]
    seconds = sizes.busy(replica, turn.began, ended)
    sizes.record(num_rows, max(seconds, least_seconds), bytes_out)
    if not has_own_memory(device):
        clock.add("compute", count * seconds)
        return
    if plan.is_measured:  # so the device is otherwise idle
        sizes.learn_stage("copy_out", _TRIED_BYTES, _seconds_to_copy_out(device))
    out = sizes.stage_seconds("copy_out", bytes_out)
    if turn.copies_alone:
        sizes.learn_stage("copy_in", num_rows, turn.copied - turn.began)
    if turn.computes_alone:
        sizes.learn_stage("compute", num_rows, max(ended - turn.launched - out, 0.0))
    clock.add("copy_out", count * out)
    for stage in ("copy_in", "compute"):
        clock.add(stage, count * sizes.stage_seconds(stage, num_rows))


def _seconds_to_copy_out(device: str) -> float:
    with tf.device(device):
        block = tf.zeros([_TRIED_BYTES], tf.uint8)
        block[:1].numpy()  # which waits for it
        began = time.perf_counter()
        block.numpy()
    return time.perf_counter() - began
