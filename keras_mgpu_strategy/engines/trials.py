"""Chunks of a run by other kinds of steps, on its first replica, and what they give."""

import contextlib
import time
from collections.abc import Iterator, Sequence

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import StepKind
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.interface import ChunkRunner
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.engines.worker_threads import ChunkError, at_fault
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.types import HostBatch, InputBatch, Nest

_TOLERANCE = 1e-5
_ROUNDING = {tf.float16: 2**-10, tf.bfloat16: 2**-7}


class Trials:
    """Runs chunks by any of `context.choices`, the first of which is that of the run.

    `size` is the rows of one call of the model.
    """

    def __init__(
        self,
        context: Context,
        batch: BatchSize,
        chunks: ChunkRunner,
        tracks: Sequence[Track],
    ):
        self._chunks, self._tracks = chunks, tracks
        self._is_measured, self.size = context.is_measured, batch.size
        self._reference: StepKind = context.choices[0]
        same = (batch.size, StageClock(1), context.limits)
        known = {"is_fixed": True, "is_measured": context.is_measured}
        self._batches: dict[StepKind, BatchSize] = {self._reference: batch}
        for kind in context.choices[1:]:
            self._batches[kind] = BatchSize(*same, kind, **known)
        self.num_ops = chunks.num_ops  # of a step that has run

    @contextlib.contextmanager
    def alone(self) -> Iterator[None]:
        """Lasts while no replica runs anything else: steps of CPUs share threads."""
        with contextlib.ExitStack() as all_of_them:
            for track in self._tracks:
                all_of_them.enter_context(track.alone())
            yield

    def make(self, kind: StepKind, chunk: InputBatch, expected: HostBatch) -> str:
        """Makes a step and runs a chunk by it; returns why it cannot be used, if so."""
        beside = contextlib.nullcontext()
        if self._is_measured:  # the memory of what runs alone
            beside = self._tracks[0].alone()
        try:
            with beside:
                results = self._run(kind, chunk, Track(1))
        except ChunkError as error:
            return failure(error)
        return difference(expected.outputs, results.outputs)

    def timed(self, kind: StepKind, chunk: InputBatch) -> tuple[HostBatch, float]:
        """The results of a chunk, and its seconds; `alone`, so nothing is ahead."""
        began = time.perf_counter()
        results = self._run(kind, chunk, self._tracks[0])
        return results, time.perf_counter() - began

    def _run(self, kind: StepKind, chunk: InputBatch, track: Track) -> HostBatch:
        batch = self._batches[kind]
        with at_fault(chunk):
            results = self._chunks.run(chunk, batch, 0, track)
            if kind != self._reference and batch.size < self.size:
                raise MemoryError(f"{self.size} rows do not fit into memory")
            return results


def failure(error: ChunkError) -> str:
    """What is said of a candidate that failed; raises what ends a run."""
    if not isinstance(error.__cause__, Exception):
        raise error
    lines = str(error.__cause__).splitlines()
    return f"failed: {lines[0] if lines else type(error.__cause__).__name__:.200}"


def difference(expected: Nest, found: Nest) -> str:
    """Where results differ by more than 1e-5 of their scale; empty if nowhere."""
    both = tf.nest.flatten(expected), tf.nest.flatten(found)
    if [(a.shape, a.dtype) for a in both[0]] != [(a.shape, a.dtype) for a in both[1]]:
        return "dropped: its results have other shapes"
    return next(filter(None, map(_difference, *both)), "")


def _difference(expected: np.ndarray, found: np.ndarray) -> str:
    dtype = tf.as_dtype(expected.dtype)
    if not dtype.is_floating:
        return "" if np.array_equal(expected, found) else "dropped: its results differ"
    before, now = expected.astype(np.float64), found.astype(np.float64)
    same = (before == now) | (np.isnan(before) & np.isnan(now))
    with np.errstate(invalid="ignore"):
        apart = np.abs(np.where(same, 0.0, now - before))
    scale = np.max(np.abs(before), initial=0.0, where=np.isfinite(before))
    worst = np.max(apart, initial=0.0)
    if worst <= _ROUNDING.get(dtype, _TOLERANCE) * scale:
        return ""
    return f"dropped: its results differ by {worst / max(scale, 1e-300):.1e}"
