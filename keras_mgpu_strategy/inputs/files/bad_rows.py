"""Rows of a file that cannot be used, among others that can.

Guarantee: the rows before one that cannot be used are handed out first.
"""

from collections.abc import Callable, Iterator
from typing import NoReturn, TypeAlias, TypeVar

from keras_mgpu_strategy.inputs.row_errors import BadRow

_Decoded = TypeVar("_Decoded")

Fail: TypeAlias = Callable[[int, str], NoReturn]
"""Raises an error about a row, counted from the first of those decoded together."""


def failing(path: object, column: str, first: int) -> Fail:
    """Returns what raises errors about the rows of a column, from row `first` on."""

    def fail(row: int, what: str) -> NoReturn:
        raise BadRow(f"{path}, column {column!r}, row {first + row} {what}", row)

    return fail


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
