"""Conversions of numbers that keep their values, or report which they cannot keep.

Guarantees:

* A float may be rounded to another float dtype, and an integer to a float, as
  everywhere in Keras. Nothing else changes a value.
* A value outside of the range of the target, a fraction among integers, and an integer
  too large for its float dtype to distinguish from its neighbour are reported.
"""

import decimal
import functools
import math
import numbers
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

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


def holds_range(dtype: np.dtype, target: np.dtype) -> bool:
    """Whether a target dtype has the range of an integer or bool dtype."""
    if kind_of(target) == "f":
        most = 1 if dtype.kind == "b" else np.iinfo(dtype).max
        with np.errstate(over="ignore"):
            return bool(np.isfinite(np.array(most).astype(target)))
    return np.can_cast(dtype, target, "safe")


def convert(chunk: np.ndarray, target: np.dtype) -> Converted:
    """Returns the values as another dtype, and which of them it cannot hold."""
    make = _CONVERSIONS.get((kind_of(chunk.dtype), kind_of(target)))
    if make is None:
        return chunk, np.ones(chunk.shape, bool)
    values, bad = make(chunk, target)
    return values, bad if bad is not None and bad.any() else None


def expected_of(value: Any, dtype: np.dtype, target: np.dtype) -> str:
    """Says what a value of one dtype must be like to be converted to another."""
    kinds = kind_of(dtype), kind_of(target)
    if kinds not in _CONVERSIONS:
        return f"{target}. Convert it first"
    if kinds == ("f", "i") and _is_large(value, dtype):
        return (
            f"a number below {_first_skipped(dtype)}: from there on, {dtype} does not "
            "hold every whole number, so that it may be another one. Pass integers"
        )
    return {
        "b": "True or False, 1 or 0. Compare first, e.g. x > 0",
        "i": f"a whole number that {target} holds",
    }.get(kinds[1], f"a number that is in the range of {target}")


def _is_large(value: float, dtype: np.dtype) -> bool:
    return math.isfinite(value) and abs(value) >= _first_skipped(dtype)


@functools.cache
def _first_skipped(dtype: np.dtype) -> int:
    """The power of two beyond which a float dtype does not hold every integer."""
    power = 0
    while power < 53 and float(dtype.type(2.0**power + 1)) == 2.0**power + 1:
        power += 1
    return 2**power


def _plain(chunk: np.ndarray, target: np.dtype) -> Converted:
    return chunk.astype(target, copy=False), None


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
    """Converts Python numbers one at a time."""
    values, bad = np.zeros(chunk.shape, target), np.ones(chunk.shape, bool)
    for place, value in np.ndenumerate(chunk):
        number = _number(value)
        if number is not None:
            values[place], wrong = convert(np.asarray(number), target)
            bad[place] = wrong is not None
    return values, bad


def _number(value: Any) -> Any:
    """Returns a number that NumPy has a dtype for; None if a value is not a number."""
    if isinstance(value, decimal.Decimal) and value.is_finite():
        value = int(value) if value == value.to_integral_value() else float(value)
    is_known = isinstance(value, (bool, float, np.bool_, np.number))
    is_known |= isinstance(value, numbers.Integral) and -(2**63) <= int(value) < 2**64
    if is_known:
        return value
    try:
        return float(value) if isinstance(value, numbers.Real) else None
    except OverflowError:
        return None


_CONVERSIONS: dict[tuple[str, str], Callable[[np.ndarray, np.dtype], Converted]] = {
    ("b", "b"): _plain,
    ("b", "i"): _plain,
    ("b", "f"): _plain,
    ("b", "c"): _plain,
    ("i", "b"): _bools,
    ("i", "i"): _integers,
    ("i", "f"): _rounded,
    ("i", "c"): _rounded,
    ("f", "b"): _bools,
    ("f", "i"): _whole,
    ("f", "f"): _rounded,
    ("f", "c"): _rounded,
    ("c", "c"): _rounded,
    ("O", "b"): _of_objects,
    ("O", "i"): _of_objects,
    ("O", "f"): _of_objects,
}
