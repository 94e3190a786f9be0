"""What a file is to hold: the columns and rows of an output."""

import dataclasses
from typing import Any

import numpy as np

from keras_mgpu_strategy.outputs.shards import Shard


@dataclasses.dataclass(frozen=True, slots=True)
class Column:
    """One output of a model, as a file holds it.

    Args:
        name: Unique among the columns; safe as a file name.
        row_shape: Shape of one row's value; () for a number. Begins with None if rows
            differ in length.
        dtype: Of its values, native byte order; object for strings, which are `bytes`.
    """

    name: str
    row_shape: tuple[Any, ...]
    dtype: np.dtype

    @property
    def is_ragged(self) -> bool:
        """Whether rows differ in length."""
        return self.row_shape[:1] == (None,)

    @property
    def is_text(self) -> bool:
        """Whether its values are strings."""
        return self.dtype.kind == "O"


@dataclasses.dataclass(frozen=True, slots=True)
class Layout:
    """What a file is to hold, known once the first results arrive.

    Args:
        columns: One per output of the model, in the order of `tf.nest.flatten`.
        first_row: Index of the first row to store; more than 0 in a shard.
        stop_row: Index one past the last row to store; None if known only at the end.
        num_rows: Rows of the whole input, of which a shard holds a range; None if
            unknown.
        has_names: Whether rows come with names.
        shard: Set if the file holds one of several ranges of the rows.
        row_multiple: The boundaries between shards are multiples of this power of two.
        kept: The `pyarrow.Schema` of columns that rows come with; None if without.
        row_tokens: A guess, the same for all shards, of the length of a row where rows
            differ in length.
    """

    columns: tuple[Column, ...]
    first_row: int = 0
    stop_row: int | None = None
    num_rows: int | None = None
    has_names: bool = False
    shard: Shard | None = None
    row_multiple: int = 1
    kept: Any = None
    row_tokens: int = 64
