"""One Arrow table of several that are read as one."""

import dataclasses
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any

from keras_mgpu_strategy.formats.parquet.schema import Schema


@dataclasses.dataclass(frozen=True, slots=True)
class Part:
    """One table; `batches` yields first rows and batches, `keys` are for all rows.

    `schema` says what its columns are as inputs, `arrow` is as it was found. `tokens`
    is about how many values a row of a column has, where that is known.
    """

    path: object
    schema: Schema
    arrow: Any
    num_rows: int
    batches: Callable[[Sequence[str], int, int], Iterator[tuple[int, Any]]]
    keys: Mapping[str, str | None] = dataclasses.field(default_factory=dict)
    tokens: Mapping[str, int] = dataclasses.field(default_factory=dict)
