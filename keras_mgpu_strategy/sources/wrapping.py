"""Sources that change some of another one: its end, or the structure of its rows."""

from collections.abc import Callable, Iterator
from typing import Any

from keras_mgpu_strategy.sources.checks import check_start
from keras_mgpu_strategy.system.closing import closing
from keras_mgpu_strategy.types import InputBatch, Nest, Source, cut


class Wrapped:
    """Another source; attributes that are not changed, such as `marks`, are its own."""

    num_rows: int | None
    spec: Nest
    batches: Callable[..., Iterator[InputBatch]]

    def __init__(self, source: Source) -> None:
        self._source = source

    def __getattr__(self, name: str) -> Any:
        """Looks up other attributes in the source."""
        if name.startswith("_"):
            raise AttributeError(name)
        return getattr(self._source, name)


class Limited(Wrapped):
    """The first rows of a source; `on_short` gets their number if found too few."""

    def __init__(
        self, source: Source, limit: int, on_short: Callable[[int], None]
    ) -> None:
        super().__init__(source)
        known = source.num_rows
        self.num_rows = None if known is None else min(known, limit)
        self._limit = limit
        self._on_short = on_short

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields batches of `batch_size` rows; the last one may be shorter."""
        if self.num_rows is not None:
            check_start(start, self.num_rows)
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
                yield InputBatch(position, num_rows, cut(batch.inputs, 0, num_rows))
                position += num_rows


class Described(Wrapped):
    """Another source, with a spec that says more than its own."""

    def __init__(self, source: Source, spec: Nest) -> None:
        super().__init__(source)
        self.received_spec, self.spec = source.spec, spec


class Rearranged(Wrapped):
    """Another source, with each nest rearranged."""

    def __init__(self, source: Source, rearrange: Callable[[Nest], Nest]) -> None:
        super().__init__(source)
        self.spec = rearrange(source.spec)
        self._rearrange = rearrange

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields the source's batches, rearranged."""
        return self._read(self._source.batches(batch_size, start))

    def _read(self, batches: Iterator[InputBatch]) -> Iterator[InputBatch]:
        with closing(batches):
            for batch in batches:
                inputs = self._rearrange(batch.inputs)
                yield InputBatch(batch.start, batch.num_rows, inputs)
