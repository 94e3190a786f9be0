"""Errors about a row that cannot be used.

Guarantee: they name the row, so that the rows before it can be used.
"""

from collections.abc import Callable
from typing import Any, NoReturn, TypeAlias

Fail: TypeAlias = Callable[[int, str], NoReturn]
"""Raises an error about a row, counted from the first of those read together."""


class BadRow(ValueError):
    """A row cannot be used.

    Args:
        message: Names the input and the row in it.
        index: Index of the row among those that were read together.
    """

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
