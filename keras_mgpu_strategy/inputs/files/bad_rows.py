"""Rows of a file that cannot be used, among others that can.

Guarantee: the rows before one that cannot be used are handed out first.
"""

from collections.abc import Callable, Iterator
from typing import TypeVar

_Decoded = TypeVar("_Decoded")


class BadRow(ValueError):
    """A row cannot be used.

    Args:
        message: Names the file and the row in it.
        index: Counts from the first of the rows that were decoded together.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index


def until_bad(num_rows: int, decode: Callable[[int], _Decoded]) -> Iterator[_Decoded]:
    """Decodes as many rows as can be used.

    Args:
        num_rows: Number of rows there are.
        decode: Decodes the first so many rows.

    Yields:
        The rows, once.

    Raises:
        BadRow: After the rows before it.
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
