"""Checks of numbers that users pass: whole ones, and counts from 1 on."""

import operator
from typing import Any

_COUNT = "Expected a whole number from 1 on."


def whole_number(value: Any) -> int:
    """Returns an int of any make; a bool is none.

    Raises:
        TypeError: The value is no whole number.
    """
    if isinstance(value, bool):
        raise TypeError("a bool is not a number")
    return operator.index(value)


def count(name: str, value: Any) -> int:
    """Returns an argument that says how many of something there are to be.

    Args:
        name: Of the argument.
        value: What a user passed.

    Raises:
        TypeError: The value is no whole number.
        ValueError: It is below 1.
    """
    try:
        number = whole_number(value)
    except TypeError as error:
        raise TypeError(
            f"{name}={value!r} is of type {type(value).__name__}. {_COUNT}"
        ) from error
    if number < 1:
        raise ValueError(f"{name}={number}. {_COUNT}")
    return number
