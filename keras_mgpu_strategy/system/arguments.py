"""Checks integers that users pass: how many of something, or which one."""

import operator
from typing import Any


def whole_number(value: Any, said: str, expected: str, *, least: int) -> int:
    """Returns any kind of integer as an int; a bool is not one.

    Args:
        value: What a user passed.
        said: How an error begins, with the value in it, such as `gpus=2.5`.
        expected: How it ends: a sentence.
        least: The smallest number allowed.

    Raises:
        TypeError: The value is not an integer.
        ValueError: It is below `least`.
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
    """Returns an argument that says how many of something there should be.

    Args:
        name: Name of the argument.
        value: What a user passed.

    Raises:
        TypeError: The value is not an integer.
        ValueError: It is below 1.
    """
    expected = "Expected a whole number from 1 on."
    return whole_number(value, f"{name}={value!r}", expected, least=1)
