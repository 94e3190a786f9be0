"""Runs of rows of unequal length: padded, run by length, and put back in order."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.engines.running import Engine
from keras_mgpu_strategy.models import PaddedOutputs, TokenCounts
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.padded_rows import PaddedRows
from keras_mgpu_strategy.sources.token_batches import TokenBatches
from keras_mgpu_strategy.sources.windows import Window
from keras_mgpu_strategy.system.closing import closing
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import HostBatch, Ragged, Source


@dataclasses.dataclass(frozen=True)
class PaddedRun:
    """A run of padded rows, in micro-batches of `batches`, whose `outputs` may vary."""

    rows: PaddedRows
    batches: TokenBatches
    outputs: PaddedOutputs

    @property
    def settings(self) -> dict[str, Any]:
        """What results depend on, as JSON values."""
        about = {**self.rows.pad.settings, "max_tokens": self.batches.tokens}
        return {"pad": about, "lengths": [*self.rows.lengths]}

    @property
    def is_ragged(self) -> bool:
        """Whether some results differ in length from row to row."""
        return any(tokens is not None for tokens in self.outputs.tokens)

    def results(
        self, engine: Engine, source: Source, size: int, start: int, clock: StageClock
    ) -> Iterator[HostBatch]:
        """Yields the results of whole windows, in the order of the input."""
        windows = self.rows.windows(source, self.batches)
        results = engine.run(windows, size, start)
        with closing(results):
            for window, parts in _whole_windows(results, windows.begun):
                given = _tokens_given(window, self.batches)
                clock.add_tokens(window.groups, int(window.lengths.sum()), given)
                yield self._in_order(window, parts)

    def _in_order(self, window: Window, parts: list[HostBatch]) -> HostBatch:
        """The results of a window in the order of its rows, without their padding."""
        leaves = zip(*(tf.nest.flatten(part.outputs) for part in parts), strict=True)
        flat = [
            _of_rows(window, arrays)
            if tokens is None
            else _of_tokens(window, arrays, tokens, self.rows.pad.side)
            for tokens, arrays in zip(self.outputs.tokens, leaves, strict=True)
        ]
        outputs = tf.nest.pack_sequence_as(parts[0].outputs, flat)
        return HostBatch(window.start, outputs)


def _tokens_given(window: Window, batches: TokenBatches) -> int:
    """How many tokens the model is given, padding included."""
    given = 0
    for length, count in window.groups.items():
        size = batches.micro_batch(length, batches.size)
        given += ceil_div(count, size) * size * length
    return given


def _whole_windows(
    results: Iterable[HostBatch], begun: deque[Window]
) -> Iterator[tuple[Window, list[HostBatch]]]:
    """Windows with all their results; one without rows if there are no others."""
    parts: list[HostBatch] = []
    for batch in results:
        if not batch.num_rows:
            none = np.zeros(0, int)
            yield Window(batch.start, none, none, {}), [batch]
            continue
        parts.append(batch)
        if batch.stop == begun[0].stop:
            yield begun.popleft(), parts
            parts = []


def _of_rows(window: Window, arrays: Sequence[np.ndarray]) -> np.ndarray:
    if window.is_in_order:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    result = np.empty((window.num_rows, *arrays[0].shape[1:]), arrays[0].dtype)
    first = 0
    for array in arrays:
        result[window.order[first : first + len(array)]] = array
        first += len(array)
    return result


def _of_tokens(
    window: Window, arrays: Sequence[np.ndarray], tokens: TokenCounts, side: str
) -> Ragged:
    """The tokens of each row, without those of its padding."""
    counts = np.asarray(tokens(window.lengths))[window.order]
    first, parts = 0, []
    for array in arrays:
        own = counts[first : first + len(array)]
        first += len(array)
        if len(own) and (own == array.shape[1]).all():
            parts.append(array.reshape(-1, *array.shape[2:]))
            continue
        is_own = np.arange(array.shape[1]) < own[:, None]
        parts.append(array[is_own[:, ::-1] if side == "left" else is_own])
    values = parts[0] if len(parts) == 1 else np.concatenate(parts)
    rows = Ragged.of_lengths(values, counts)
    return rows if window.is_in_order else rows.taken(np.argsort(window.order))
