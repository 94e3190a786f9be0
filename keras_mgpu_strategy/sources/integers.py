"""Integers of several dtypes in one column or input, and Python's own.

Guarantee: an integer keeps its value; anything else is an error that names the row.
"""

import decimal
import math
from collections.abc import Sequence
from typing import Any

import numpy as np

from keras_mgpu_strategy.sources.row_errors import Fail

_LEAST, _MOST_SIGNED, _MOST = -(2**63), 2**63 - 1, 2**64 - 1
_SKIPPED = 2**53
"""Starting here, Python's floats skip some integers."""


def common_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """Returns the common dtype of numbers, or of strings.

    For several integer dtypes it is an integer, too. A uint64 value that int64 cannot
    hold is an error in its row, whereas NumPy would turn all values into floats.
    """
    common = np.result_type(*dtypes)
    if common.kind == "f" and all(dtype.kind in "biu" for dtype in dtypes):
        return np.dtype(np.int64)
    return common


def as_integers(values: Sequence[Any], per_row: int, fail: Fail) -> np.ndarray:
    """Returns an array of int64, or of uint64 if some values need it.

    Args:
        values: Integers, bools, floats and decimals.
        per_row: Number of values per row.
        fail: Called for the first row with a value that is not a 64-bit integer.
    """
    found = [_integer(value) for value in values]
    low = min((number for number in found if number is not None), default=0)
    most = _MOST if low >= 0 else _MOST_SIGNED
    for index, number in enumerate(found):
        if number is None or not _LEAST <= number <= most:
            fail(
                index // per_row,
                f"holds {values[index]}, expected an integer of 64 bits, below 2**53 "
                "if it is a float.",
            )
    is_signed = all(number <= _MOST_SIGNED for number in found if number is not None)
    return np.array(found, np.int64 if is_signed else np.uint64)


def _integer(value: Any) -> int | None:
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else None
    if isinstance(value, float):
        is_whole = (
            math.isfinite(value) and value == int(value) and abs(value) < _SKIPPED
        )
        return int(value) if is_whole else None
    return int(value)
