"""What an engine needs for a run besides rows and a model: per-run state."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.signatures import Signature, SpecMemory, row_bytes
from keras_mgpu_strategy.compute.sizes import most_chunk_rows
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.chunk_sizes import Pace
from keras_mgpu_strategy.engines.feed import Chunk
from keras_mgpu_strategy.engines.memory_plans import Limits
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.types import Nest, cut


@dataclasses.dataclass(frozen=True)
class Work:
    """One run of a replicated model.

    Args:
        devices: Each replica's device.
        specs: The input specs seen so far.
        pace: How long rows take.
        clock: Where the time of this run goes.
        head: What is done to the outputs on the device.
        jit_compile: Whether XLA compiles the model.
        may_fall_back: Whether a model that XLA cannot compile runs without it.
        is_fixed: Whether the model takes no other batch size.
        limits: How much memory batches are known to take.
        is_measured: Whether the devices report how much of their memory is in use.
        in_flight: Chunks queued for computation on one device at a time.
        ahead: Further chunks for each device, which are read, copied or taken.
        tunes: Whether the engine may look for a better batch size during the run.
        run: Number of the run, so that each has random numbers of its own.
        spec: Nest of `tf.TensorSpec` of what the model is given, or of what is sent
            to processes that preprocess it.
        preprocess: Applied in this process to a batch of rows before the model is
            given them; None if nothing is.
        missing: Filled with the rows that other processes could not read.
    """

    devices: tuple[str, ...]
    specs: SpecMemory
    pace: Pace
    clock: StageClock
    head: heads.Head = heads.identity
    jit_compile: bool = False
    may_fall_back: bool = False
    is_fixed: bool = False
    limits: Limits = dataclasses.field(default_factory=Limits)
    is_measured: bool = False
    in_flight: int = 1
    ahead: int = 1
    tunes: bool = False
    run: int = 0
    spec: Nest = None
    preprocess: Callable[[Nest], Nest] | None = None
    missing: set[int] = dataclasses.field(default_factory=set)

    def batch(self, size: int) -> BatchSize:
        """The per-replica batch of the run.

        Args:
            size: The initial size, in rows.
        """
        return BatchSize(
            size,
            self.clock,
            self.limits,
            is_fixed=self.is_fixed,
            is_measured=self.is_measured,
        )

    def signature(self, inputs: Nest, batch_size: int) -> Signature:
        """What to compile for inputs of these shapes."""
        xla = (self.jit_compile, self.may_fall_back)
        return Signature(self.specs.cover(inputs), batch_size, self.head, *xla)

    @property
    def pads_batches(self) -> bool:
        """Whether preprocessing may give each batch rows of a different length."""
        leaves = tf.nest.flatten(self.spec)
        varies = any(None in leaf.shape[1:].as_list() for leaf in leaves)
        return varies and self.preprocess is not None

    def most_rows(self, batch_size: int) -> int:
        """The most rows of a chunk.

        Args:
            batch_size: Per-replica batch; a chunk holds no more if each batch may be
                padded to a length of its own.
        """
        if self.pads_batches:
            return batch_size
        return most_chunk_rows(batch_size, row_bytes(self.spec))

    def ready(self, chunk: Chunk, batch_size: int) -> Chunk:
        """Returns a chunk as the model is given it, preprocessed batch by batch.

        Args:
            chunk: The rows as they were read.
            batch_size: Per-replica batch.
        """
        if self.preprocess is None:
            return chunk
        starts = range(0, max(chunk.num_rows, 1), batch_size)
        raw = [cut(chunk.inputs, start, start + batch_size) for start in starts]
        with self.clock.stage("input"):
            batches = [self.preprocess(batch) for batch in raw]
            inputs = tf.nest.map_structure(lambda *a: np.concatenate(a), *batches)
        return dataclasses.replace(chunk, inputs=inputs)
