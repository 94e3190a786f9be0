"""Tables as sources: each part is decoded once per reading, kept columns included."""

from collections.abc import Callable, Generator, Iterator
from typing import Any, Protocol

from keras_mgpu_strategy.sources.beside import Beside
from keras_mgpu_strategy.sources.checks import check_start
from keras_mgpu_strategy.sources.nests import skeleton
from keras_mgpu_strategy.sources.rebatch import RowBuffer, Rows
from keras_mgpu_strategy.types import NO_MARKS, InputBatch, Nest, Origin, RowMarks


class HasOrigin(Protocol):
    """Distinguishes a table from others."""

    def origin(self) -> Origin: ...  # noqa: D102


class TableSource:
    """A `Source` over a table.

    `open_fn` reads from a row on; without `num_rows`, ValueError for one past the end.
    `kept_schema` is of the columns that come with the rows, if any.
    """

    def __init__(
        self,
        open_fn: Callable[[int], Generator[Rows, None, None]],
        num_rows: int | None,
        spec: Nest,
        identity: HasOrigin,
        kept_schema: Any = None,
    ) -> None:
        self._open_fn = open_fn
        self._beside = None if kept_schema is None else Beside(kept_schema)
        self.kept_schema = kept_schema
        self.num_rows = num_rows
        self.spec = spec
        self.identity = identity

    def origin(self) -> Origin:
        """What distinguishes the table from others."""
        return self.identity.origin()

    def marks(self, start: int, stop: int) -> RowMarks:
        """The columns kept beside rows that were read."""
        return NO_MARKS if self._beside is None else self._beside.between(start, stop)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows; the last one may be shorter."""
        check_start(start, start if self.num_rows is None else self.num_rows)
        return self._read(batch_size, start)

    def _read(self, batch_size: int, start: int) -> Iterator[InputBatch]:
        buffer = RowBuffer(self._open_fn(start), start, self._beside)
        try:
            yield from buffer.batches(batch_size, skeleton(self.spec))
        finally:
            buffer.close()
