"""Rows of unequal length in the order in which they are run: window by window.

Within a window, rows are sorted by the length that they are padded to; to an engine,
they are consecutive rows in this order. Windows begin at multiples of a number of rows,
and in between wherever a limit of bytes is reached, counted from such a multiple on: so
they are the same wherever a run starts.
"""

import contextlib
import dataclasses
import itertools
from collections import deque
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.sources.padding import padded_nest
from keras_mgpu_strategy.sources.ragged_pieces import Pieces, row_lengths
from keras_mgpu_strategy.sources.token_batches import TokenBatches
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.system.integers import next_power_of_two
from keras_mgpu_strategy.types import InputBatch, Nest, Source, of_length


@dataclasses.dataclass(frozen=True)
class Window:
    """The order of consecutive rows.

    The longest come first: they take the most memory, and the last ones the least time.
    """

    start: int  # index of the first row in the input
    lengths: np.ndarray  # tokens of each row that the model is given, without padding
    order: np.ndarray  # for each place, the row that is run there, from `start` on
    groups: dict[int, int]  # length -> how many rows are padded to it

    @property
    def num_rows(self) -> int:
        """Number of rows."""
        return len(self.order)

    @property
    def stop(self) -> int:
        """Index of the first row after it."""
        return self.start + self.num_rows

    @property
    def is_in_order(self) -> bool:
        """Whether rows are run in the order of the input."""
        return len(self.groups) <= 1


def check_lengths(pad: Pad, own: np.ndarray, start: int = 0) -> None:
    """Refuses rows, from row `start` on, that are too long for the user's lengths."""
    if pad.lengths == "auto" or pad.truncate or not np.any(own > pad.lengths[-1]):
        return
    row = int(np.argmax(own > pad.lengths[-1]))
    raise ValueError(
        f"Row {start + row} has {own[row]} tokens, more than the longest of "
        f"lengths={list(pad.lengths)}. Pass a longer one, or truncate=True to cut such "
        "rows."
    )


class Windows(Wrapped):
    """A `Source` of padded rows, window by window; those not run yet are in `begun`.

    Sizes of batches count rows of the longest length, and are multiples of the
    `size` of `batches`.
    """

    def __init__(
        self,
        source: Source,
        pad: Pad,
        values: Sequence[Any],
        batches: TokenBatches,
        row_bytes: tuple[int, int],
        piece_rows: int,
    ) -> None:
        super().__init__(source)
        self._pad = pad
        self._lengths = np.array([length for length, _ in batches.rows])
        self._values = values
        self._batches = batches
        self._row_bytes = row_bytes
        self._piece_rows = piece_rows
        self.begun: deque[Window] = deque()

    @property
    def spec(self) -> Nest:
        """Of rows of the longest length."""
        longest = self._batches.longest
        flat = [
            leaf if value is None else of_length(leaf, longest)
            for leaf, value in zip(
                tf.nest.flatten(self._source.spec), self._values, strict=True
            )
        ]
        return tf.nest.pack_sequence_as(self._source.spec, flat)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields padded rows from the window on that begins at `start`."""
        most = self._pad.window
        position = start - start % most
        rest = self._source.batches(self._piece_rows, position)
        with contextlib.closing(Pieces(rest, self._row_bytes)) as pieces:
            while (rows := pieces.take(most - position % most)) is not None:
                position += rows.num_rows
                if position <= start:
                    continue
                assert rows.start >= start, "a run starts at a window"
                window = self._planned(rows)
                self.begun.append(window)
                for block in self._blocks(window, rows.inputs, batch_size):
                    yield block
                    done = block.start + block.num_rows - window.start
                    pieces.read_ahead(done * most // window.num_rows)

    def _planned(self, rows: InputBatch) -> Window:
        own = row_lengths(rows)
        check_lengths(self._pad, own, rows.start)
        if self._pad.truncate:
            own = np.minimum(own, self._lengths[-1])
        table = self._table(own, rows.start)
        buckets = np.searchsorted(table, own)
        groups = self._groups(table, np.bincount(buckets, minlength=len(table)))
        order = np.arange(rows.num_rows)
        if len(groups) > 1:
            order = np.argsort(-buckets, kind="stable")
        return Window(rows.start, own, order, groups)

    def _table(self, own: np.ndarray, start: int) -> np.ndarray:
        """The lengths that there are for these rows."""
        pad, lengths = self._pad, self._lengths
        further = {next_power_of_two(int(n)) for n in {*own[own > lengths[-1]]}}
        if pad.max_tokens is not None and max(further, default=0) > pad.max_tokens:
            row = int(own.argmax())
            raise ValueError(
                f"Row {start + row} has {own[row]} tokens, which are padded to "
                f"{max(further)}: more than max_tokens={pad.max_tokens} of one call of "
                "the model. Pass more, or lengths= with truncate=True."
            )
        return np.array([*lengths, *sorted(further)])

    def _groups(self, table: np.ndarray, counts: np.ndarray) -> dict[int, int]:
        """Rows by length; what does not fill a batch may be moved up."""
        size, used = self._batches.size, np.flatnonzero(counts)
        sizes = [self._batches.micro_batch(int(length), size) for length in table]
        counts = counts.copy()
        for here, above in itertools.pairwise(used):
            left, room = counts[here] % sizes[here], -counts[above] % sizes[above]
            if left <= room:  # so that there is one batch less
                counts[here] -= left
                counts[above] += left
        return {int(table[i]): int(counts[i]) for i in np.flatnonzero(counts)[::-1]}

    def _blocks(
        self, window: Window, inputs: Nest, batch_size: int
    ) -> Iterator[InputBatch]:
        start = 0
        for length, count in window.groups.items():
            stop = start + count
            most = self._batches.chunk(length, self._batches.size, batch_size)
            for first in range(start, stop, most):
                rows = window.order[first : min(first + most, stop)]
                block = padded_nest(inputs, rows, length, self._values, self._pad.side)
                yield InputBatch(window.start + first, len(rows), block)
            start = stop
