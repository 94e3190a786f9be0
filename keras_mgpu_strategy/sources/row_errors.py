"""Errors about a row that cannot be used.

Guarantee: they say which row it is, so that the rows before it can be used.
"""

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

Fail: TypeAlias = Callable[[int, str], NoReturn]
"""Raises an error about a row, counted from the first of those read together."""


class BadRow(ValueError):
    """A row cannot be used.

    Args:
        message: Names the input and the row in it.
        index: Counts from the first of the rows that were read together.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        """Processes send each other errors."""
        return type(self), (*self.args, self.index)


def failing(where: str, first: int) -> Fail:
    """Returns what raises errors about the rows of an input, from row `first` on."""

    def fail(row: int, what: str) -> NoReturn:
        raise BadRow(f"{where}, row {first + row} {what}", row)

    return fail
