"""What an engine needs for a run besides rows and a model: per-run state."""

import dataclasses
import threading
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.signatures import Signature, SpecMemory, row_bytes
from keras_mgpu_strategy.compute.sizes import most_chunk_rows
from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize, Limits
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import InputBatch, Nest, cut

_LEAST_SECONDS = 0.03
_SECONDS_PER_REPLICA = 0.005
_NEWEST = 0.3


class StageTimes:
    """How long a device takes for each stage of a chunk on its own.

    Only calls that had the device to themselves are used, such as the first of a run,
    and the fastest of those counts.
    """

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def learn(self, stage: str, amount: int, seconds: float) -> None:
        """Learns from a call that ran alone on an amount of rows or bytes."""
        rate = seconds / max(amount, 1)
        self._rates[stage] = min(rate, self._rates.get(stage, rate))

    def seconds(self, stage: str, amount: int) -> float:
        """How long a stage takes for that many rows or bytes; 0 if unknown."""
        return self._rates.get(stage, 0.0) * amount


class ChunkSizes:
    """The time that a row takes, learned from chunk to chunk.

    Time that calls overlap on one device counts once: a device that holds two chunks is
    not mistaken for one of half the speed. `stages` are timed on devices with memory of
    their own.
    """

    def __init__(self, num_replicas: int):
        self._num_replicas = num_replicas
        self._target = max(_LEAST_SECONDS, _SECONDS_PER_REPLICA * num_replicas)
        self.stages = StageTimes()
        self._seconds_per_row: float | None = None
        self._free_since = [0.0] * num_replicas
        self._lock = threading.Lock()

    def busy(self, replica: int, began: float, ended: float) -> float:
        """Seconds of a call in which its device was not busy with an earlier one."""
        with self._lock:
            free_since = self._free_since[replica]
            self._free_since[replica] = max(ended, free_since)
        return max(ended - max(began, free_since), 0.0)

    def record(self, num_rows: int, seconds: float) -> None:
        """Learns that a replica computed some rows, padding included."""
        newest = seconds / num_rows
        with self._lock:
            known = self._seconds_per_row or newest
            self._seconds_per_row = known + _NEWEST * (newest - known)

    def seconds(self, num_rows: int) -> float:
        """How long one replica takes for some rows; infinite if not known yet."""
        known = self._seconds_per_row
        return float("inf") if known is None else known * num_rows

    def chunk_rows(self, batch_size: int, most_rows: int, rows_left: int | None) -> int:
        """Rows to take now: whole micro-batches, one if nothing is known yet."""
        if self._seconds_per_row is None:
            return batch_size
        wanted = self._target / max(self._seconds_per_row * batch_size, 1e-9)
        most = max(most_rows // batch_size, 1)
        if rows_left is not None:
            most = min(most, ceil_div(rows_left, 2 * self._num_replicas * batch_size))
        return batch_size * max(min(int(wanted), most), 1)


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
        is_copied = any(map(has_own_memory, self.devices))
        return most_chunk_rows(batch_size, row_bytes(self.spec), is_copied=is_copied)

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
