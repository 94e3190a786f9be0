"""Rows of a file that cannot be used, among others that can.

Guarantee: the rows before an unusable one are handed out first.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

from keras_mgpu_strategy.sources import row_errors
from keras_mgpu_strategy.sources.row_errors import BadRow, Fail

_Decoded = TypeVar("_Decoded")


def failing(path: object, column: str, first: int) -> Fail:
    """Returns what raises errors about rows of a column, counted from row `first`."""
    return row_errors.failing(f"{path}, column {column!r}", first)


def until_bad(num_rows: int, decode: Callable[[int], _Decoded]) -> Iterator[_Decoded]:
    """Decodes the rows before the first that cannot be used.

    Args:
        num_rows: Number of rows.
        decode: Decodes the given number of first rows.

    Yields:
        The rows, once.

    Raises:
        BadRow: After the rows before it have been yielded.
    """
    error = None
    while True:
        try:
            decoded = decode(num_rows)
            break
        except BadRow as bad:
            error, num_rows = bad, bad.index
    if num_rows:
        yield decoded
    if error is not None:
        raise error
