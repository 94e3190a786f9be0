"""Checks of arguments that say how much is read, made before anything is read."""

import numbers
from typing import Any


def check_batch_size(batch_size: Any, x: Any) -> None:
    """Raises ValueError, naming the type of `x`, unless None or an integer above 0."""
    _check_count("batch_size", batch_size, f" for an input of type {type(x).__name__}")


def check_steps(steps: Any) -> None:
    """Checks a number of batches to read, likewise."""
    _check_count("steps", steps, "")


def check_start(start: int, num_rows: int) -> None:
    """Raises `ValueError` for a first row that is not within or at the input's end."""
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
            f"Received {name}={value!r} ({type(value).__name__}){where}, expected an "
            "integer of 1 or more."
        )
    if value < 1:
        raise ValueError(
            f"Received {name}={value}{where}, expected 1 or more. Leave it out for "
            "the default."
        )
