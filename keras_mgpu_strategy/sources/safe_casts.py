"""Conversions of numbers that keep their values, or report which they cannot keep.

Floats may be rounded to float dtypes, and integers to floats. Anything else is
reported: values out of range, fractions among integers, and integers too large for a
float dtype to tell them from their neighbour.
"""

import decimal
import functools
import math
import numbers
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.row_errors import Fail

Converted = tuple[np.ndarray, np.ndarray | None]
"""The converted values, and which of them are wrong; None if all are right."""


def kind_of(dtype: np.dtype) -> str:
    """Returns "b", "i", "f" or "c" for numbers, "O" for objects, "" for the rest."""
    if dtype.kind in "biufcO":
        return "i" if dtype.kind == "u" else dtype.kind
    # bfloat16 and the float8 types have NumPy kind "V".
    known = as_tf(dtype) if dtype.kind == "V" and dtype.names is None else None
    return "f" if known is not None and known.is_floating else ""


def as_tf(dtype: np.dtype) -> tf.DType | None:
    """Returns TensorFlow's counterpart of a NumPy dtype; None if there is none."""
    try:
        return tf.as_dtype(dtype)
    except TypeError:
        return None


def common_dtype(dtypes: Sequence[np.dtype]) -> np.dtype:
    """Returns the common dtype of numbers or strings; of integers, an integer one."""
    common = np.result_type(*dtypes)
    are_integers = all(dtype.kind in "biu" for dtype in dtypes)
    return np.dtype(np.int64) if common.kind == "f" and are_integers else common


def is_convertible(dtype: np.dtype, target: np.dtype) -> bool:
    """Whether some values of a dtype can be converted to another."""
    return kind_of(dtype) + kind_of(target) in _CONVERSIONS


def holds_range(dtype: np.dtype, target: np.dtype) -> bool:
    """Whether a target dtype has the range of an integer or bool dtype."""
    if kind_of(target) == "f":
        most = 1 if dtype.kind == "b" else np.iinfo(dtype).max
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.array(most).astype(target)))
    return np.can_cast(dtype, target, "safe")


def convert(chunk: np.ndarray, target: np.dtype) -> Converted:
    """Returns the values as another dtype, and which of them it cannot hold."""
    make = _CONVERSIONS.get(kind_of(chunk.dtype) + kind_of(target), _unchanged)
    values, bad = make(chunk, target)
    return values, bad if bad is not None and bad.any() else None


def expected_of(value: Any, dtype: np.dtype, target: np.dtype) -> str:
    """Says what a value of one dtype must be like to be converted to another."""
    if not is_convertible(dtype, target):
        return f"{target}. Convert it first"
    is_float = kind_of(dtype) == "f"
    match kind_of(target):
        case "b":
            return "True or False, 1 or 0. Compare first, e.g. x > 0"
        case "i" if is_float and _first_skipped(dtype) <= abs(value) < math.inf:
            return (
                f"a number below {_first_skipped(dtype)}: from there on, {dtype} does "
                "not hold every integer, so the number meant may differ. Pass integers"
            )
        case "i":
            return f"an integer that {target} holds"
    return f"a number that is in the range of {target}"


def as_integers(values: Sequence[Any], per_row: int, fail: Fail) -> np.ndarray:
    """Returns int64, or uint64 if needed; `fail` gets the first bad row, if any."""
    found = [_integer(value) for value in values]
    known = [number for number in found if number is not None]
    least, end = (-(2**63), 2**63) if min(known, default=0) < 0 else (0, 2**64)
    for index, number in enumerate(found):
        if number is None or not least <= number < end:
            fail(
                index // per_row,
                f"holds {values[index]}, expected an integer of 64 bits, below 2**53 "
                "if it is a float.",
            )
    return np.array(found, np.int64 if max(known, default=0) < 2**63 else np.uint64)


def _integer(value: Any) -> int | None:
    if isinstance(value, decimal.Decimal):
        return int(value) if value == value.to_integral_value() else None
    # Starting at 2**53, floats skip some integers.
    if isinstance(value, float) and not (value.is_integer() and abs(value) < 2**53):
        return None
    return int(value)


@functools.cache
def _first_skipped(dtype: np.dtype) -> int:
    """The power of two beyond which a float dtype does not hold every integer."""
    powers = [2.0**power for power in range(53)]
    return int(next((p for p in powers if float(dtype.type(p + 1)) != p + 1), 2**53))


def _unchanged(chunk: np.ndarray, target: np.dtype) -> Converted:
    return chunk, np.ones(chunk.shape, bool)


def _rounded(chunk: np.ndarray, target: np.dtype) -> Converted:
    with np.errstate(over="ignore"):
        values = chunk.astype(target, copy=False)
    if np.isfinite(values).all():
        return values, None
    return values, np.isfinite(chunk) & ~np.isfinite(values)


def _integers(chunk: np.ndarray, target: np.dtype) -> Converted:
    values = chunk.astype(target, copy=False)
    if np.can_cast(chunk.dtype, target, "safe") or not chunk.size:
        return values, None
    limits = np.iinfo(target)
    if int(chunk.min()) >= limits.min and int(chunk.max()) <= limits.max:
        return values, None
    return values, (values.astype(chunk.dtype) != chunk) | ((values < 0) != (chunk < 0))


def _whole(chunk: np.ndarray, target: np.dtype) -> Converted:
    limits, skipped = np.iinfo(target), _first_skipped(chunk.dtype)
    numbers = chunk if chunk.dtype.itemsize >= 4 else chunk.astype(np.float32)
    least, most = max(limits.min, 1 - skipped), min(limits.max, skipped - 1)
    fits = (numbers >= least) & (numbers <= most) & (numbers == np.trunc(numbers))
    with np.errstate(invalid="ignore"):
        return numbers.astype(target), ~fits


def _bools(chunk: np.ndarray, target: np.dtype) -> Converted:
    return chunk.astype(target), (chunk != 0) & (chunk != 1)


def _of_objects(chunk: np.ndarray, target: np.dtype) -> Converted:
    values, bad = np.zeros(chunk.shape, target), np.ones(chunk.shape, bool)
    for place, value in np.ndenumerate(chunk):
        number = _number(value)
        if number is not None:
            values[place], wrong = convert(np.asarray(number), target)
            bad[place] = wrong is not None
    return values, bad


def _number(value: Any) -> Any:
    if isinstance(value, decimal.Decimal) and value.is_finite():
        value = int(value) if value == value.to_integral_value() else float(value)
    if isinstance(value, bool | float | np.bool_ | np.number):
        return value
    if isinstance(value, numbers.Integral) and -(2**63) <= int(value) < 2**64:
        return value
    try:
        return float(value) if isinstance(value, numbers.Real) else None
    except OverflowError:
        return None


_CONVERSIONS: dict[str, Callable[[np.ndarray, np.dtype], Converted]] = {
    **dict.fromkeys(("bb", "bi", "bf", "bc", "if", "ic", "ff", "fc", "cc"), _rounded),
    **dict.fromkeys(("ib", "fb"), _bools),
    **dict.fromkeys(("Ob", "Oi", "Of"), _of_objects),
    "ii": _integers,
    "fi": _whole,
}
"""By the kinds of both dtypes."""
