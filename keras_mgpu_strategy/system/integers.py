"""Integers: those that users pass, checked, and arithmetic."""

import operator
from typing import Any


def as_int(value: Any, said: str, expected: str, *, least: int) -> int:
    """Returns any kind of integer as an int; a bool is not one.

    A TypeError, or a ValueError below `least`, begins with `said`: `gpus=2.5`.
    """
    try:
        number = operator.index(value)
    except TypeError:
        number = None
    if number is None or isinstance(value, bool):
        raise TypeError(f"{said} of type {type(value).__name__}. {expected}")
    if number < least:
        raise ValueError(f"{said}. {expected}")
    return number


def count(name: str, value: Any) -> int:
    """Returns the argument `name`, an integer of at least 1; raises as `as_int`."""
    expected = "Expected an integer of at least 1."
    return as_int(value, f"{name}={value!r}", expected, least=1)


def ceil_div(dividend: int, divisor: int) -> int:
    """Quotient, rounded up."""
    return -(-dividend // divisor)


def next_power_of_two(number: int) -> int:
    """The smallest power of two that is at least `number`, and at least 1."""
    return 1 << max(number - 1, 0).bit_length()
