"""Ranges of rows for machines that share a run without talking to each other.

All rows are covered once, by arithmetic on the number of rows and of shards alone.
"""

import dataclasses
import pathlib
from typing import Any

from keras_mgpu_strategy.system.integers import as_int, ceil_div

_LEAST_BLOCKS_PER_SHARD = 64


@dataclasses.dataclass(frozen=True, slots=True)
class Shard:
    """One of `count` ranges of the rows of an input; `index` begins at 0."""

    index: int
    count: int

    def __post_init__(self) -> None:
        """Checks the values."""
        if not 0 <= self.index < self.count:
            raise ValueError(
                f"shard=({self.index}, {self.count}). Expected the first to be one of "
                f"0 to {self.count - 1}, and the second at least 1."
            )

    @property
    def numbers(self) -> str:
        """As in file names: `00002-of-00008`."""
        return f"{self.index:05d}-of-{self.count:05d}"

    @property
    def name(self) -> str:
        """As in file names: `shard-00002-of-00008`."""
        return f"shard-{self.numbers}"

    def file_of(self, output: pathlib.Path) -> pathlib.Path:
        """The finished file of this shard, where each has one."""
        return output.with_name(f"{output.stem}.{self.name}{output.suffix}")

    def rows(self, num_rows: int, window: int | None = None) -> range:
        """The rows of this shard, of all `num_rows`; empty if there are too few.

        If rows are sorted by length within a window, it begins and ends at windows.
        """
        multiple = window or self.row_multiple(num_rows)
        blocks = ceil_div(num_rows, multiple)
        first, stop = (
            min(index * blocks // self.count * multiple, num_rows)
            for index in (self.index, self.index + 1)
        )
        return range(first, stop)

    def row_multiple(self, num_rows: int, window: int | None = None) -> int:
        """The power of two whose multiples all shards but the last begin and end at."""
        if window is not None:
            return window & -window
        blocks = num_rows // (self.count * _LEAST_BLOCKS_PER_SHARD)
        return 1 << max(blocks.bit_length() - 1, 0)


def shard_of(pair: Any) -> Shard | None:
    """The shard that a user asks for by `(index, count)`; None for None."""
    if pair is None:
        return None
    said = f"shard={pair!r}"
    expected = "Expected two integers: which shard, from 0 on, and how many."
    if not isinstance(pair, tuple | list) or len(pair) != 2:
        raise TypeError(f"{said}. {expected}")
    numbers = [
        as_int(value, f"{said} holds {value!r}", expected, least=0) for value in pair
    ]
    return Shard(*numbers)
