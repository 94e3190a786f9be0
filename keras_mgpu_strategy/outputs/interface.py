"""The interfaces of sinks, the places where results go.

A sink takes results in row order and does not know about models or devices.
"""

import dataclasses
import pathlib
from typing import Any, Protocol

import numpy as np

from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.types import HostBatch


class Sink(Protocol):
    """Where results go.

    Guarantees that every sink gives:

    * Rows up to `num_written` are stored, in order, exactly as handed over.
    * `write` copies what it keeps: the caller's arrays may be views.
    """

    @property
    def num_written(self) -> int:
        """Index of the next row to store."""
        ...

    def write(self, batch: HostBatch) -> None:
        """Stores a batch, which must begin at row `num_written`."""
        ...

    def close(self) -> None:
        """Ends writing; calling it twice is harmless."""
        ...


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
    def of_token(self) -> "Column":
        """The same column with a row for each token of this one's rows."""
        return dataclasses.replace(self, row_shape=self.row_shape[1:])

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


class FileSink(Sink, Protocol):
    """Results on disk, which outlive the process.

    Made by a `FileFormat`. Guarantees that every file sink gives:

    * After `flush`, the rows it counts survive the process being killed and the
      machine losing power.
    * What `finish` leaves is byte for byte the same, however often writing was
      interrupted and resumed, and however the rows were batched.
    * A full disk is an `OSError`, never a crash.
    * `write` raises a `ValueError` for a batch that does not fit the layout: another
      row (the message says which), or another row shape or dtype than the first
      results.
    """

    def flush(self) -> dict[str, int]:
        """Puts everything written safely on disk.

        Returns:
            What `FileFormat.reopen` needs, including `rows` (the current
            `num_written`).
        """
        ...

    def finish(self) -> None:
        """Completes the file: after it, other tools can read all rows. Closes."""
        ...


class FileFormat(Protocol):
    """A file format that results can be written in."""

    def check(self, layout: Layout) -> None:
        """Checks that such results can be stored, touching nothing.

        Raises:
            ValueError: This format cannot hold them.
            ImportError: A package is missing; names the extra to install.
        """
        ...

    def create(self, path: pathlib.Path, layout: Layout) -> FileSink:
        """Begins a new file or folder at `path`, in place of what may be there."""
        ...

    def reopen(
        self, path: pathlib.Path, layout: Layout, mark: dict[str, int]
    ) -> FileSink:
        """Resumes a file that `create` began, after the rows of `mark`.

        Args:
            path: The file or folder; whatever was written past the mark is dropped.
            layout: As it was given to `create`.
            mark: What `flush` returned.

        Raises:
            ValueError: The file is missing, shorter than the mark says, or damaged.
        """
        ...
