"""Tables, read in order, starting at any row.

Guarantees:

* Rows are cut into the requested batches, whatever the layout on disk; each part of a
  table is decoded once per reading.
"""

from collections.abc import Callable, Generator, Iterator
from typing import Protocol

from keras_mgpu_strategy.sources.checks import check_batch_size, check_start
from keras_mgpu_strategy.sources.nests import pack, skeleton
from keras_mgpu_strategy.sources.rebatch import RowBuffer, Rows
from keras_mgpu_strategy.types import InputBatch, Nest, Origin


class Identity(Protocol):
    """Distinguishes a table from others."""

    def origin(self) -> Origin:
        """What distinguishes this table."""
        ...


class TableSource:
    """A `Source` over a table.

    Args:
        open_fn: Begins a reading at a row and returns pieces of any length, with one
            array per leaf of `spec`.
        num_rows: Number of rows; None if unknown, and `open_fn` then raises a
            `ValueError` for a row past the end.
        spec: Nest of `tf.TensorSpec` of what is read.
        identity: Distinguishes the table from others.
    """

    def __init__(
        self,
        open_fn: Callable[[int], Generator[Rows, None, None]],
        num_rows: int | None,
        spec: Nest,
        identity: Identity,
    ) -> None:
        self._open_fn = open_fn
        self.num_rows = num_rows
        self.spec = spec
        self.identity = identity
        self._structure = skeleton(spec)

    def origin(self) -> Origin:
        """What distinguishes the table from others."""
        return self.identity.origin()

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows; the last one may be shorter."""
        check_batch_size(batch_size, self)
        check_start(start, start if self.num_rows is None else self.num_rows)
        return self._read(batch_size, start)

    def _read(self, batch_size: int, start: int) -> Iterator[InputBatch]:
        buffer = RowBuffer(self._open_fn(start))
        try:
            first = start
            while (rows := buffer.take(batch_size)) is not None:
                inputs = pack(self._structure, rows.flat)
                yield InputBatch(first, rows.num_rows, inputs)
                first += rows.num_rows
        finally:
            buffer.close()
