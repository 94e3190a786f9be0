"""What an engine needs for a run besides rows and a model: per-run state."""

import dataclasses
import math
import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.signatures import (
    Signature,
    SpecMemory,
    StepKind,
    row_bytes,
)
from keras_mgpu_strategy.compute.sizes import most_chunk_rows, most_result_rows
from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize, Limits, Plan
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.sources.token_batches import ONE_LENGTH, TokenBatches
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import InputBatch, Nest, cut

_LEAST_SECONDS = 0.03
_SECONDS_PER_REPLICA = 0.005
_NEWEST = 0.3


class ChunkSizes:
    """The time that a row takes; time that calls overlap on a device counts once."""

    def __init__(self, num_replicas: int):
        self._num_replicas = num_replicas
        self._target = max(_LEAST_SECONDS, _SECONDS_PER_REPLICA * num_replicas)
        self._stage_rates: dict[str, float] = {}  # at their fastest
        self.result_bytes = 0.0  # of a row; 0 if unknown
        self._seconds_per_row: float | None = None
        self._free_since = [0.0] * num_replicas
        self._lock = threading.Lock()

    def busy(self, replica: int, began: float, ended: float) -> float:
        """Seconds of a call in which its device was not busy with an earlier one."""
        with self._lock:
            free_since = self._free_since[replica]
            self._free_since[replica] = max(ended, free_since)
        return max(ended - max(began, free_since), 0.0)

    def learn_stage(self, stage: str, amount: float, seconds: float) -> None:
        """Learns from a call that had the device alone, on some rows or bytes."""
        rate = seconds / max(amount, 1)
        self._stage_rates[stage] = min(rate, self._stage_rates.get(stage, rate))

    def stage_seconds(self, stage: str, amount: float) -> float:
        """How long a stage takes for that many rows or bytes; 0 if unknown."""
        return self._stage_rates.get(stage, 0.0) * amount

    def record(self, num_rows: float, seconds: float, bytes_out: int = 0) -> None:
        """Learns that a replica computed some rows, padding included."""
        newest = seconds / num_rows
        with self._lock:
            self.result_bytes = max(self.result_bytes, bytes_out / num_rows)
            known = self._seconds_per_row or newest
            self._seconds_per_row = known + _NEWEST * (newest - known)

    def restart(self, seconds_per_row: float) -> None:
        """Forgets what was learned by another step."""
        with self._lock:
            self._seconds_per_row = seconds_per_row

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
    """One run of a replicated model."""

    devices: tuple[str, ...]
    specs: SpecMemory  # seen so far
    chunk_sizes: ChunkSizes
    clock: StageClock
    head: heads.Head = heads.identity  # what is done to the outputs on the device
    step: StepKind | None = None  # of the first chunk; None: the first of `choices`
    choices: tuple[StepKind, ...] = ("plain",)
    tries: bool = False  # may look for a faster step among them
    weight_bytes: int = 0  # of one copy of the model's variables; 0 if unknown
    makes_each: bool = False  # a step for each replica, not one for all
    may_fall_back: bool = False  # to a plain step, where that one cannot be made
    is_fixed: bool = False  # the model takes no other batch size
    limits: Limits = dataclasses.field(default_factory=Limits)
    is_measured: bool = False  # devices report how much memory is in use
    in_flight: int = 1  # chunks queued for computation on a device at a time
    ahead: int = 1  # further chunks for each device: read, copied or taken
    tunes: bool = False  # may look for a better batch size
    most_batch: int | None = None  # rows of it; None for no limit
    run: int = 0  # its number, for random numbers of its own
    spec: Nest = None  # of what the model, or a process that preprocesses, is given
    preprocess: Callable[[Nest], Nest] | None = None  # by batch, in this process
    tokens: TokenBatches = ONE_LENGTH  # of rows padded to several lengths

    def fitted(self, choices: tuple[StepKind, ...], **known: Any) -> "Context":
        """With what depends on devices, model and options.

        The first of the choices, or the one that is given, is that of the first chunk,
        and may fall back to a plain step.
        """
        step = self.step if self.step in choices else choices[0]
        others = (kind for kind in choices if kind != step)
        return dataclasses.replace(self, step=step, choices=(step, *others), **known)

    def batch(self, size: int) -> BatchSize:
        """The per-replica batch of the run, which begins with `size` rows."""
        known = {"is_fixed": self.is_fixed, "is_measured": self.is_measured}
        same = (self.clock, self.limits, self.step or self.choices[0])
        return BatchSize(size, *same, most=self.most_batch, **known)

    def signature(self, inputs: Nest, plan: Plan) -> Signature:
        """What to compile for inputs of these shapes."""
        size = self.micro_batch(inputs, plan.size)
        specs = SpecMemory() if self.tokens.is_static else self.specs
        # Others are not chosen unless they can be made.
        how = (plan.step, self.may_fall_back and plan.step == self.choices[0])
        return Signature(specs.cover(inputs), size, self.head, *how)

    def micro_batch(self, inputs: Nest, batch_size: int) -> int:
        """Rows of a call of the model, for inputs of their length."""
        return self.tokens.micro_batch(self.tokens.length(inputs), batch_size)

    def chunk_of(self, inputs: Nest, batch_size: int, most_rows: int) -> int:
        """The most rows of a chunk of their length; `most_rows` are of the longest."""
        return self.tokens.chunk(self.tokens.length(inputs), batch_size, most_rows)

    def weight(self, inputs: Nest, num_rows: int) -> float:
        """How many rows of the longest length take as long as some of theirs."""
        return self.tokens.weight(self.tokens.length(inputs), num_rows)

    @property
    def _rows_vary(self) -> bool:
        leaves = tf.nest.flatten(self.spec)
        return any(None in leaf.shape[1:].as_list() for leaf in leaves)

    @property
    def searches(self) -> bool:
        """Whether a run may try steps: rows of equal shapes can be compared."""
        return self.tries and len(self.choices) > 1 and not self._rows_vary

    @property
    def pads_batches(self) -> bool:
        """Whether preprocessing may give each batch rows of a different length."""
        return self.preprocess is not None and self._rows_vary

    def most_rows(self, batch_size: int, num_rows: int | None) -> int:
        """The most rows of a chunk: one batch, if each may have a length of its own.

        Streams, of an unknown number of rows, are not read far ahead.
        """
        if self.pads_batches:
            return batch_size
        is_copied = num_rows is not None and any(map(has_own_memory, self.devices))
        row = row_bytes(self.spec, self.tokens.longest)
        return most_chunk_rows(batch_size, row, is_copied=is_copied)

    def chunk_rows(self, batch_size: int, most_rows: int, rows_left: int | None) -> int:
        """Rows to take now; their results too are held by the host."""
        most = self._most_result_rows
        most_rows = most_rows if most is None else min(most, most_rows)
        return self.chunk_sizes.chunk_rows(batch_size, most_rows, rows_left)

    def most_rows_ahead(self, batch_size: int, num_chunks: int) -> float:
        """Rows that may wait for an earlier chunk: twice as many as run at a time."""
        most = self._most_result_rows
        if most is None:
            return math.inf
        return max(2 * num_chunks * max(most, batch_size), self.tokens.window)

    @property
    def _most_result_rows(self) -> int | None:
        """Rows of a chunk whose results the host can hold; None if not known yet."""
        is_copied = any(map(has_own_memory, self.devices))
        return most_result_rows(self.chunk_sizes.result_bytes, is_copied=is_copied)

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
