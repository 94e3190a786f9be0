"""Runs of rows of unequal length: padded, run by length, and put back in order."""

import dataclasses
from collections import deque
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.sizes import per_replica
from keras_mgpu_strategy.engines.interface import Engine
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.sources.token_batches import TokenBatches
from keras_mgpu_strategy.sources.windows import Window, Windows
from keras_mgpu_strategy.system.closing import closing
from keras_mgpu_strategy.types import HostBatch, Source
from keras_mgpu_strategy.types.ragged import Ragged

_TOKENS = 16384


@dataclasses.dataclass(frozen=True)
class PaddedRows:
    """How the rows of a run are padded.

    Args:
        pad: As the user says.
        lengths: What rows are padded to, in ascending order.
        values: What each of the flat inputs is padded with; None if it does not vary.
        row_bytes: Of inputs and outputs: of a row, and of a token.
        varies: For each of the flat outputs, whether it has a token for each of a
            row's.
        piece_rows: How many rows are read at a time.
    """

    pad: Pad
    lengths: tuple[int, ...]
    values: tuple[Any, ...]
    row_bytes: tuple[int, int]
    varies: tuple[bool, ...]
    piece_rows: int

    def batches(
        self,
        batch_size: int | None,
        fixed: int | None,
        most: int | None,
        num_replicas: int,
    ) -> TokenBatches:
        """Micro-batches as the user, a model of `fixed` batches, or memory says."""
        longest, tokens = self.lengths[-1], self.pad.max_tokens
        leaf = next((i for i, x in enumerate(self.values) if x is not None), 0)
        if batch_size is not None or fixed is not None:
            if tokens is not None:
                given = f"batch_size={batch_size}"
                if batch_size is None:
                    given = f"a model that was built for batches of {fixed} rows"
                raise ValueError(
                    f"Received max_tokens={tokens} and {given}. Expected one of them: "
                    "both say how many rows a batch has."
                )
            size = fixed or per_replica(batch_size or 1, num_replicas)
            return TokenBatches(leaf, longest, size, None)
        if tokens is not None and tokens < longest:
            raise ValueError(
                f"max_tokens={tokens} is less than one row of the longest length, "
                f"{longest} tokens. Pass more, or lengths= with truncate=True."
            )
        tokens = tokens or max(min(_TOKENS, (most or _TOKENS) * longest), longest)
        return TokenBatches(leaf, longest, max(tokens // longest, 1), tokens)

    def results(
        self,
        engine: Engine,
        source: Source,
        batches: TokenBatches,
        size: int,
        start: int,
        clock: StageClock,
    ) -> Iterator[HostBatch]:
        """Yields the results of whole windows, in the order of the input."""
        windows = Windows(
            source,
            self.pad,
            self.lengths,
            self.values,
            batches,
            self.row_bytes,
            self.piece_rows,
        )
        results = engine.run(windows, size, start)
        with closing(results):
            for window, parts in _whole_windows(results, windows.begun):
                if window is None:
                    yield self._empty(parts[0])
                    continue
                clock.add_tokens(*tokens_of(window, batches))
                yield _in_order(window, parts, self.varies, self.pad.side)

    def _empty(self, batch: HostBatch) -> HostBatch:
        """A batch without rows, of the structure of results."""
        flat = tf.nest.flatten(batch.outputs)
        varies = _of_each(self.varies, len(flat))
        leaves = [
            _ragged([leaf[:, :0]], np.zeros(0, int), np.zeros(0, int)) if own else leaf
            for leaf, own in zip(flat, varies, strict=True)
        ]
        return HostBatch(batch.start, tf.nest.pack_sequence_as(batch.outputs, leaves))


def tokens_of(window: Window, batches: TokenBatches) -> tuple[dict[int, int], int, int]:
    """Rows by length, tokens of the rows, and tokens that the model is given."""
    rows = {group.length: group.stop - group.start for group in window.groups}
    given = 0
    for length, count in rows.items():
        size = batches.micro_batch(length, batches.size)
        given += -(-count // size) * size * length
    return rows, int(window.lengths.sum()), given


def _whole_windows(
    results: Iterable[HostBatch], begun: deque[Window]
) -> Iterator[tuple[Window | None, list[HostBatch]]]:
    """Windows with all their results; None for results without rows."""
    parts: list[HostBatch] = []
    for batch in results:
        if not batch.num_rows:
            yield None, [batch]
            continue
        parts.append(batch)
        if batch.stop == begun[0].stop:
            yield begun.popleft(), parts
            parts = []


def _of_each(varies: Sequence[bool], num_leaves: int) -> list[bool]:
    """For each leaf of the results: a head may make several of an output."""
    each = num_leaves // max(len(varies), 1)
    return [own for own in varies for _ in range(each)] or [False] * num_leaves


def _in_order(
    window: Window, parts: list[HostBatch], varies: Sequence[bool], side: str
) -> HostBatch:
    """The results of a window in the order of its rows, without their padding."""
    columns = [*zip(*(tf.nest.flatten(part.outputs) for part in parts), strict=True)]
    leaves = [
        _of_tokens(window, arrays, side) if own else _of_rows(window, arrays)
        for own, arrays in zip(_of_each(varies, len(columns)), columns, strict=True)
    ]
    outputs = tf.nest.pack_sequence_as(parts[0].outputs, leaves)
    return HostBatch(window.start, outputs)


def _of_rows(window: Window, arrays: Sequence[np.ndarray]) -> np.ndarray:
    if window.is_in_order:
        return arrays[0] if len(arrays) == 1 else np.concatenate(arrays)
    result = np.empty((len(window.order), *arrays[0].shape[1:]), arrays[0].dtype)
    first = 0
    for array in arrays:
        result[window.order[first : first + len(array)]] = array
        first += len(array)
    return result


def _of_tokens(window: Window, arrays: Sequence[np.ndarray], side: str) -> Ragged:
    own, first, parts = window.lengths[window.order], 0, []
    for array in arrays:
        counts = own[first : first + len(array)]
        places = np.arange(array.shape[1])
        is_own = places < counts[:, None]
        if side == "left":
            is_own = is_own[:, ::-1]
        parts.append(array[is_own])
        first += len(array)
    return _ragged(parts, own, np.argsort(window.order))


def _ragged(
    parts: Sequence[np.ndarray], lengths: np.ndarray, order: np.ndarray
) -> Ragged:
    offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int64)
    return Ragged(np.concatenate(parts), offsets).taken(order)
