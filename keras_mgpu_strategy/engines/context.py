"""What an engine needs for a run besides rows and a model: per-run state."""

import dataclasses
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.signatures import Signature, SpecMemory, row_bytes
from keras_mgpu_strategy.compute.sizes import most_chunk_rows
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.chunk_sizes import ChunkSizes
from keras_mgpu_strategy.engines.memory import Limits
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.types import InputBatch, Nest, cut


@dataclasses.dataclass(frozen=True)
class Context:
    """One run of a replicated model.

    Args:
        devices: Each replica's device.
        specs: The input specs seen so far.
        chunk_sizes: How long rows take, and how many to take at a time.
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
    """

    devices: tuple[str, ...]
    specs: SpecMemory
    chunk_sizes: ChunkSizes
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

    def batch(self, size: int) -> BatchSize:
        """The per-replica batch of the run, which begins with `size` rows."""
        known = {"is_fixed": self.is_fixed, "is_measured": self.is_measured}
        return BatchSize(size, self.clock, self.limits, **known)

    def signature(self, inputs: Nest, batch_size: int) -> Signature:
        """What to compile for inputs of these shapes."""
        xla = (self.jit_compile, self.may_fall_back)
        return Signature(self.specs.cover(inputs), batch_size, self.head, *xla)

    @property
    def pads_batches(self) -> bool:
        """Whether preprocessing may give each batch rows of a different length."""
        axes = [leaf.shape[1:].as_list() for leaf in tf.nest.flatten(self.spec)]
        return self.preprocess is not None and any(None in own for own in axes)

    def most_rows(self, batch_size: int) -> int:
        """The most rows of a chunk: one batch, if each may have a length of its own."""
        if self.pads_batches:
            return batch_size
        return most_chunk_rows(batch_size, row_bytes(self.spec))

    def ready(self, chunk: InputBatch, batch_size: int) -> InputBatch:
        """A chunk as the model is given it, preprocessed batch by batch."""
        if self.preprocess is None:
            return chunk
        starts = range(0, max(chunk.num_rows, 1), batch_size)
        raw = [cut(chunk.inputs, start, start + batch_size) for start in starts]
        with self.clock.stage("input"):
            batches = [self.preprocess(batch) for batch in raw]
            inputs = tf.nest.map_structure(lambda *a: np.concatenate(a), *batches)
        return InputBatch(chunk.start, chunk.num_rows, inputs)
