"""Errors that name a row that cannot be used, so that the rows before it can be."""

from collections.abc import Callable, Iterator
from typing import Any, NoReturn, TypeAlias, TypeVar

import numpy as np

Fail: TypeAlias = Callable[[int, str], NoReturn]
"""Raises an error about a row, counted from the first of those read together."""
_Decoded = TypeVar("_Decoded")


class BadRow(ValueError):
    """A row cannot be used; `index` counts among those that were read together."""

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        """Makes the error picklable: processes send each other errors."""
        return type(self), (*self.args, self.index)


def failing(where: str, first: int) -> Fail:
    """Returns what raises errors about rows of an input, counted from row `first`."""

    def fail(row: int, what: str) -> NoReturn:
        raise BadRow(f"{where}, row {first + row} {what}", row)

    return fail


def failing_tokens(ends: np.ndarray, fail: Fail) -> Fail:
    """Returns what raises errors about a token, by where rows end, as `fail`."""

    def fail_token(token: int, what: str) -> NoReturn:
        fail(int(np.searchsorted(ends, token, "right")), what)

    return fail_token


def until_bad(num_rows: int, decode: Callable[[int], _Decoded]) -> Iterator[_Decoded]:
    """Yields rows before the first bad one, then raises; `decode` takes how many."""
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
