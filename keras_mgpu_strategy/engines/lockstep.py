"""Runs one chunk on each replica, all together, by `strategy.run`."""

import dataclasses
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.compute.compiled import scalar
from keras_mgpu_strategy.compute.step import StepCompiler
from keras_mgpu_strategy.compute.transfers import HOST
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.feed import Chunk
from keras_mgpu_strategy.engines.fitting import run_fitting
from keras_mgpu_strategy.engines.memory_plans import Plan
from keras_mgpu_strategy.engines.timing import note_stages, try_copies_out
from keras_mgpu_strategy.engines.track import Track, Turn
from keras_mgpu_strategy.engines.worker_threads import ChunkError
from keras_mgpu_strategy.types import HostBatch


@dataclasses.dataclass(frozen=True)
class Round:
    """One chunk for each replica.

    Args:
        chunks: The chunks; the start is -1 if a replica idles.
    """

    chunks: tuple[Chunk, ...]

    @property
    def busy(self) -> list[Chunk]:
        """The chunks of the replicas that do not idle."""
        return [chunk for chunk in self.chunks if chunk.start >= 0]

    @property
    def start(self) -> int:
        """Index of the first row."""
        return min(chunk.start for chunk in self.busy)

    @property
    def most_rows(self) -> int:
        """Rows that a device is given."""
        return max(chunk.num_rows for chunk in self.chunks)

    def split(self, num_rows: int | None) -> tuple["Round", "Round | None"]:
        """The first rows of each replica, and the others; None if there are none."""
        if num_rows is None or self.most_rows <= num_rows:
            return self, None
        parts = [_on_host(chunk).split(num_rows) for chunk in self.chunks]
        idle = [Chunk(-1, 0, head.inputs) for head, _ in parts]
        rests = [rest or idle[index] for index, (_, rest) in enumerate(parts)]
        return Round(tuple(head for head, _ in parts)), Round(tuple(rests))


class LockstepChunks:
    """Runs one chunk on each replica; called by several threads.

    Args:
        work: Per-run state.
        compiler: Makes and keeps the compiled steps.
        batch: The per-replica batch, shrunk if memory runs out.
    """

    def __init__(self, work: Work, compiler: StepCompiler, batch: BatchSize):
        self._work = work
        self._compiler = compiler
        self._batch = batch
        self._track = Track(work.in_flight)
        self._strategy = compiler.strategy

    def run(self, round: Round, element_spec: Sequence[Any]) -> list[HostBatch]:
        """Returns the results of the replicas that do not idle.

        Args:
            round: The chunks.
            element_spec: Specs of the distributed dataset that they come from: two
                numbers, then the flat inputs.

        Raises:
            ChunkError: Any error, with the first row of the chunks.
        """

        def attempt(piece: Round, plan: Plan, turn: Turn) -> tuple[Any, int]:
            return self._attempt(piece, plan, element_spec, turn)

        devices = self._work.devices
        try:
            parts = run_fitting(round, attempt, self._batch, self._track, devices)
        except BaseException as error:
            for chunk in round.busy:
                error.add_note(chunk.failed)
            raise ChunkError(round.start) from error
        return [batch for part in parts for batch in part]

    def _attempt(
        self, round: Round, plan: Plan, spec: Sequence[Any], turn: Turn
    ) -> tuple[list[HostBatch], int]:
        work, compiler = self._work, self._compiler
        for chunk in round.chunks:
            signature = work.signature(chunk.inputs, plan.size)
        step = compiler.lockstep(signature, spec, work.clock)
        # The two numbers of an element have the specs of a run and a row.
        copy = compiler.lockstep_copier(spec[2:], work.clock)
        numbers = [[scalar(work.run), scalar(c.start)] for c in round.chunks]
        inputs = [_whole_batches(chunk, plan.size) for chunk in round.chunks]
        leaves: Any = self._per_replica(inputs)
        turn.copy()
        leaves = copy(*leaves)
        turn.launch()
        # Otherwise results would pass through the first GPU on their way to the host.
        with tf.device(HOST):
            outputs = step(*self._per_replica(numbers), *leaves)
        batches, moved = self._results(outputs, round.chunks, inputs, plan.size)
        if plan.is_measured:
            try_copies_out(work, 0)
        rows = max(len(leaves[0]) for leaves in inputs)
        bytes_out = max(batch.num_bytes for batch in batches)
        # In step: each replica is busy until the slowest one ends.
        note_stages(work, 0, turn, rows, bytes_out, count=len(inputs))
        return batches, moved

    def _per_replica(self, inputs: list[list[tf.Tensor]]) -> list[Any]:
        """Turns one flat list per replica into one distributed value per leaf."""
        if len(inputs) == 1:  # as the data set of a single replica gives it
            return inputs[0]
        distribute = self._strategy.experimental_distribute_values_from_function

        def value(leaf: int) -> Any:
            return distribute(
                lambda context: inputs[context.replica_id_in_sync_group][leaf]
            )

        return [value(leaf) for leaf in range(len(inputs[0]))]

    def _results(
        self,
        outputs: Any,
        chunks: Sequence[Chunk],
        inputs: list[list[tf.Tensor]],
        size: int,
    ) -> tuple[list[HostBatch], int]:
        local_results = self._strategy.experimental_local_results
        results = [local_results(leaf) for leaf in tf.nest.flatten(outputs)]
        batches, moved = [], 0
        for replica, (chunk, leaves) in enumerate(zip(chunks, inputs, strict=True)):
            if chunk.start < 0:
                continue
            mine = tf.nest.pack_sequence_as(
                outputs, [leaf[replica] for leaf in results]
            )
            num_bytes = sum(
                leaf.shape.num_elements() * leaf.dtype.size for leaf in leaves
            )
            self._work.clock.add_chunk(replica, chunk.num_rows, size, num_bytes)
            batch = gather.to_host(mine, chunk.start, chunk.num_rows, len(leaves[0]))
            moved = max(moved, num_bytes + 2 * batch.num_bytes)
            batches.append(batch)
        return batches, moved


def _whole_batches(chunk: Chunk, size: int) -> list[Any]:
    """Flat tensors, padded again if the batch has become smaller since."""
    flat = tf.nest.flatten(chunk.inputs)
    if int(flat[0].shape[0]) % size == 0 and isinstance(flat[0], tf.Tensor):
        return flat
    with tf.device(HOST):
        return [tf.convert_to_tensor(a) for a in _on_host(chunk).padded(size)]


def _on_host(chunk: Chunk) -> Chunk:
    """A chunk of arrays, without its padding."""
    rows = max(chunk.num_rows, 1)
    arrays = tf.nest.map_structure(lambda leaf: np.asarray(leaf)[:rows], chunk.inputs)
    return Chunk(chunk.start, chunk.num_rows, arrays)
