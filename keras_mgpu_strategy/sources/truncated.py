"""A source cut off after a number of rows."""

from collections.abc import Callable, Iterator
from typing import Any

from keras_mgpu_strategy.sources.checks import check_batch_size, check_start
from keras_mgpu_strategy.system.closing import closing
from keras_mgpu_strategy.types import InputBatch, Nest, Source, cut


class Limited:
    """The first rows of another source; forwards other attributes to it.

    Args:
        source: The other source.
        limit: The most rows to read.
        on_short: Called with the number of rows if the source has fewer, and did not
            know its number before the end.
    """

    def __init__(
        self, source: Source, limit: int, on_short: Callable[[int], None]
    ) -> None:
        self._source = source
        self._limit = limit
        self._on_short = on_short

    @property
    def num_rows(self) -> int | None:
        """Number of rows to read; None if the source does not know its own."""
        known = self._source.num_rows
        return None if known is None else min(known, self._limit)

    @property
    def spec(self) -> Nest:
        """The source's spec."""
        return self._source.spec

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows; the last one may be shorter."""
        check_batch_size(batch_size, self)
        if self._source.num_rows is not None:
            check_start(start, min(self._source.num_rows, self._limit))
        return self._read(self._source.batches(batch_size, start), start)

    def _read(
        self, batches: Iterator[InputBatch], position: int
    ) -> Iterator[InputBatch]:
        with closing(batches):
            while position < self._limit:
                batch = next(batches, None)
                if batch is None:
                    if self.num_rows is None:
                        self._on_short(position)
                    return
                num_rows = min(batch.num_rows, self._limit - position)
                inputs = cut(batch.inputs, 0, num_rows)
                yield InputBatch(position, num_rows, inputs)
                position += num_rows

    def __getattr__(self, name: str) -> Any:
        """Looks up other attributes, such as `identity`, in the source."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._source, name)
