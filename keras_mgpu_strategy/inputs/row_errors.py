"""The error of a row that cannot be used.

Guarantee: it says which row, so that the rows before it can be used.
"""

from typing import Any


class BadRow(ValueError):
    """A row cannot be used.

    Args:
        message: Names the input and the row in it.
        index: Counts from the first of the rows that were decoded together.
    """

    def __init__(self, message: str, index: int) -> None:
        super().__init__(message)
        self.index = index

    def __reduce__(self) -> tuple[Any, ...]:
        """Processes send each other errors."""
        return type(self), (*self.args, self.index)
