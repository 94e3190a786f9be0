"""Micro-batches of rows that are padded to one of several lengths.

Sizes of batches and chunks count rows of the longest length; of a shorter one, more
rows make as many tokens.
"""

import dataclasses
import math
from collections.abc import Sequence

import tensorflow as tf

from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class TokenBatches:
    """How many rows of a length are one micro-batch, and a chunk.

    `leaf` is the flat input that has the length, None if all rows have the same. `rows`
    are the lengths in ascending order, and the rows of each in a micro-batch.
    """

    leaf: int | None = None
    rows: tuple[tuple[int, int], ...] = ((1, 1),)
    tokens: int | None = None  # the most of a micro-batch; None if all have equal rows
    is_static: bool = False  # whether the model is traced for each length
    window: int = 0  # rows whose results wait for each other in any case

    @property
    def longest(self) -> int:
        """The longest length, in tokens."""
        return self.rows[-1][0]

    @property
    def size(self) -> int:
        """Rows of the longest length in a micro-batch."""
        return self.rows[-1][1]

    def length(self, inputs: Nest) -> int:
        """The length that rows were padded to; 1 if they were not."""
        if self.leaf is None:
            return 1
        return int(tf.nest.flatten(inputs)[self.leaf].shape[1])

    def micro_batch(self, length: int, size: int) -> int:
        """Rows of a micro-batch, of which the longest length has `size`."""
        if self.tokens is None:
            return size
        own = dict(self.rows).get(length) or self.tokens // length
        return max(own * size // self.size, 1)

    def chunk(self, length: int, size: int, most_rows: int) -> int:
        """Rows of whole micro-batches, as long as `most_rows` of the longest."""
        rows, own = most_rows * self.longest // length, self.micro_batch(length, size)
        return max(rows // own, 1) * own

    def weight(self, length: int, rows: int) -> float:
        """How many rows of the longest length have as many tokens."""
        return rows * length / self.longest


ONE_LENGTH = TokenBatches()
"""Of rows that are not padded."""


def token_batches(
    leaf: int, rows: Sequence[tuple[int, int]], tokens: int, *, is_all: bool
) -> TokenBatches:
    """Micro-batches of at most so many tokens, which the rows of a window fill.

    `rows` are those of the first window, by length; `is_all` says that there are no
    others. Where there are, a window may have somewhat more of a length than the first.
    """
    num_rows = max(sum(count for _, count in rows), 1)

    def size(length: int, count: int) -> int:
        most = max(tokens // length, 1)
        if not count:
            return most
        spread = 0.0 if is_all else 2 * math.sqrt(count * (1 - count / num_rows))
        wanted = math.ceil(count + spread)
        return ceil_div(wanted, ceil_div(wanted, most))

    sizes = tuple((length, size(length, count)) for length, count in rows)
    return TokenBatches(leaf, sizes, tokens)
