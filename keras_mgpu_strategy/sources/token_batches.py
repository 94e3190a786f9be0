"""Micro-batches of rows that are padded to one of several lengths.

Sizes of batches and chunks count rows of the longest length; of a shorter one, more
rows make as many tokens.
"""

import dataclasses

import tensorflow as tf

from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class TokenBatches:
    """How many rows of a length are one micro-batch, and a chunk.

    Args:
        leaf: Which of the flat inputs has the length.
        longest: The longest length, in tokens.
        size: Rows of it in a micro-batch.
        tokens: The most of a micro-batch; None if all have as many rows.
        is_static: Whether the model is traced for each length.
    """

    leaf: int
    longest: int
    size: int
    tokens: int | None
    is_static: bool = False

    def length(self, inputs: Nest) -> int:
        """The length that rows were padded to."""
        return int(tf.nest.flatten(inputs)[self.leaf].shape[1])

    def micro_batch(self, length: int, size: int) -> int:
        """Rows of a micro-batch, of which the longest length has `size`."""
        if self.tokens is None:
            return size
        return max(self.tokens * size // (self.size * max(length, 1)), 1)

    def chunk(self, length: int, size: int, most_rows: int) -> int:
        """Rows of whole micro-batches, as long as `most_rows` of the longest."""
        rows, own = self.rows_in(length, most_rows), self.micro_batch(length, size)
        return max(rows // own, 1) * own

    def rows_in(self, length: int, rows: int) -> int:
        """How many rows have as many tokens as some of the longest length."""
        return rows * self.longest // max(length, 1)

    def weight(self, length: int, rows: int) -> float:
        """How many rows of the longest length have as many tokens."""
        return rows * length / self.longest
