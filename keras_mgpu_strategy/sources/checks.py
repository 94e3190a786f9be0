"""Checks of the plain arguments that say how much is read.

Guarantees:

* Raises before anything is read, and names the value received and the one expected.
"""

import numbers
from typing import Any


def check_batch_size(batch_size: Any, x: Any) -> None:
    """Checks a batch size given by the user.

    A batch size is accepted for every kind of input, also for those that come in
    their own batches: their rows are joined and cut again.

    Args:
        batch_size: The value; None stands for the default.
        x: The input that it was given for; named in the message.

    Raises:
        ValueError: If it is not an integer, or below 1.
    """
    _check_count("batch_size", batch_size, f" for an input of type {_type_name(x)}")


def check_steps(steps: Any) -> None:
    """Checks a number of batches to read; None stands for all.

    Raises:
        ValueError: If it is not an integer, or below 1.
    """
    _check_count("steps", steps, "")


def check_start(start: int, num_rows: int) -> None:
    """Checks the index of the first row to read.

    Raises:
        ValueError: If it is negative or beyond the end of the input.
    """
    if not 0 <= start <= num_rows:
        raise ValueError(
            f"Received start={start}, expected a row index from 0 to {num_rows}, "
            "the number of rows of the input."
        )


def _check_count(name: str, value: Any, where: str) -> None:
    if value is None:
        return
    if isinstance(value, bool) or not isinstance(value, numbers.Integral):
        raise ValueError(
            f"Received {name}={value!r} ({_type_name(value)}){where}, expected a "
            "whole number of 1 or more."
        )
    if value < 1:
        raise ValueError(
            f"Received {name}={value}{where}, expected 1 or more. Leave it out for "
            "the default."
        )


def _type_name(x: Any) -> str:
    return type(x).__name__
