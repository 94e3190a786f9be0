"""Sinks, the files that take results in row order, and the formats that make them.

A batch that does not fit is refused whole. `num_written` counts only rows that are
stored whole, even if a write fails halfway; `flush` and `reopen` continue from it.
"""

import abc
import pathlib
import sys
from typing import Any, Protocol

from keras_mgpu_strategy.outputs.columns import structure_of
from keras_mgpu_strategy.outputs.durable import damaged
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.rows import checked_rows, rows_between
from keras_mgpu_strategy.types import HostBatch


def row_of(path: pathlib.Path, layout: Layout, mark: dict[str, int]) -> int:
    """Returns the row at which an output is resumed; an error if it has no such row."""
    row, first, stop = mark["rows"], layout.first_row, layout.stop_row
    if row < first or (stop is not None and row > stop):
        rows = f"{first} to {'its end' if stop is None else stop}"
        raise damaged(path, f"is marked at row {row}, but holds rows {rows}")
    return row


class RowSink(abc.ABC):
    """Results on disk, which outlive the process; made by a `FileFormat`.

    A subclass only has to store the rows of `outputs.rows`. Every sink guarantees:

    * Rows up to `num_written` are stored, in order, exactly as handed over. The
      caller's arrays may be views: what is kept of them is copied.
    * After `flush`, the rows it counts survive the process being killed and the
      machine losing power.
    * What `finish` leaves is byte for byte the same, however often writing was
      interrupted and resumed, and however the rows were batched.
    * A full disk is an `OSError`, never a crash.
    """

    def __init__(self, layout: Layout, num_written: int):
        self._layout = layout
        self._num_written = num_written
        self._has_begun = False
        self._is_closed = False

    @property
    def num_written(self) -> int:
        """Index of the next row to store."""
        return self._num_written

    def write(self, batch: HostBatch) -> None:
        """Stores a batch, which must begin at row `num_written`.

        Raises:
            ValueError: The batch does not fit the layout: another row (the message says
                which), or another row shape or dtype than the first results.
        """
        self._check_open()
        rows = self._fitting(checked_rows(self._layout, self._num_written, batch))
        if not self._has_begun:
            self._begin(structure_of(batch.outputs))
            self._has_begun = True
        while self._num_written < rows.stop:
            stop = min(rows.stop, self._limit())
            self._append(rows_between(rows, self._num_written, stop))
            self._num_written = stop

    def flush(self) -> dict[str, int]:
        """Puts everything written safely on disk; returns what `reopen` needs."""
        self._check_open()
        return {**self._sync(), "rows": self._num_written}

    def finish(self) -> None:
        """Completes the file and closes it; an error if rows are still to come."""
        self._check_open()
        stop = self._layout.stop_row
        if stop is not None and self._num_written != stop:
            raise ValueError(
                f"Rows {self._num_written} to {stop} were not written, so the output "
                "is not complete."
            )
        self._complete()
        self.close()

    def close(self) -> None:
        """Closes the files; calling it twice is harmless."""
        self._is_closed = True
        self._release()

    def _check_open(self) -> None:
        if self._is_closed:
            raise ValueError("The output is closed; reopen it to write more rows.")

    def _fitting(self, rows: HostBatch) -> HostBatch:
        """Rows as this format stores them; a `ValueError` if it cannot hold some."""
        return rows

    def _begin(self, structure: Any) -> None:  # noqa: B027
        """Receives the nest of the outputs' names, before the first rows."""

    def _limit(self) -> int:
        """Index of the row before which the next `_append` must end."""
        return sys.maxsize

    @abc.abstractmethod
    def _append(self, rows: HostBatch) -> None:
        """Stores rows starting at `num_written`; may be retried after an error."""

    @abc.abstractmethod
    def _sync(self) -> dict[str, int]:
        """Puts the rows before `num_written` safely on disk."""

    @abc.abstractmethod
    def _complete(self) -> None:
        """Turns the rows into what other tools read, safely on disk."""

    def _release(self) -> None:  # noqa: B027
        """Closes files."""


class FileFormat(Protocol):
    """A file format that results can be written in."""

    def check(self, layout: Layout) -> None:
        """Checks that such results can be stored, touching nothing.

        Raises:
            ValueError: This format cannot hold them.
            ImportError: A package is missing; names the extra to install.
        """
        ...

    def create(self, path: pathlib.Path, layout: Layout) -> RowSink:
        """Begins a new file or folder at `path`, in place of what may be there."""
        ...

    def reopen(
        self, path: pathlib.Path, layout: Layout, mark: dict[str, int]
    ) -> RowSink:
        """Resumes a file that `create` began, after the rows of `mark`.

        Args:
            path: The file or folder; whatever was written past the mark is dropped.
            layout: As it was given to `create`.
            mark: What `flush` returned.

        Raises:
            ValueError: The file is missing, shorter than the mark says, or damaged.
        """
        ...
