"""Which dtype rows have when they reach the model: one rule for every kind of input.

The rule, by what the model's input declares:

* **a float dtype**: floats are rounded to it, once. Integers and bools stay as they are
  if it has their range, and the model rounds them on its device. Nothing finite
  becomes infinite.
* **an integer dtype**: integers that it holds, bools, and floats that are integers in
  the range where their dtype holds every integer (below 2**24 in float32, below
  2**53 in float64). Anything else is an error that names the row.
* **bool**: bools, and numbers that are 0 or 1.
* **strings**: `str` (as UTF-8) and `bytes`.
* **nothing**: floats become `keras.config.floatx()`, or what the model computes in if
  that is wider; everything else stays.

How to use it: call `cast_for(dtype, path, wanted)` once for each model input, with the
expected dtype of its rows and the dtype that the model declares. The result has the
dtype for the `spec` of the source. Then call `Cast.convert` for each chunk. A chunk may
have a dtype other than expected: each is checked.

Guarantees:

* All chunks of an input have one dtype, whatever they are read as.
* A value that this dtype cannot hold is never changed: a `BadRow` names it.
* Strings become object arrays of `bytes`, the only form that TensorFlow reads as
  `tf.string` without losing trailing zero bytes.
* A conversion touches only the chunk it is given, never the whole input, and returns
  the same memory if nothing has to change.
* Objects are refused, never unpickled or guessed at.
"""

import dataclasses
from typing import Any, NoReturn, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.row_errors import Fail, failing
from keras_mgpu_strategy.sources.safe_casts import (
    as_tf,
    convert,
    expected_of,
    holds_range,
    kind_of,
)
from keras_mgpu_strategy.types import Undeclared

Wanted: TypeAlias = tf.DType | Undeclared | None
"""What a model takes; None for a model that declares nothing and computes in floatx."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cast:
    """How chunks of one input are converted.

    Args:
        dtype: The dtype that the model is given.
        path: Names the input in messages.
    """

    dtype: tf.DType
    path: str

    def convert(self, chunk: np.ndarray, fail: Fail | None = None) -> np.ndarray:
        """Returns an array that TensorFlow reads as `dtype`.

        Args:
            chunk: Rows, of any dtype.
            fail: Called for a row with a value that cannot be kept, as made by
                `row_errors.failing`; None counts rows from the start of the chunk.
        """
        target = np.dtype(self.dtype.as_numpy_dtype)
        if self.dtype == tf.string:
            values, bad = _encoded(chunk)
        elif chunk.dtype == target:
            return chunk
        else:
            values, bad = convert(chunk, target)
        if bad is not None and bad.size:
            self._fail(chunk, bad, fail or failing(self.path, 0))
        return values

    def _fail(self, chunk: np.ndarray, bad: np.ndarray, fail: Fail) -> NoReturn:
        place = np.unravel_index(int(bad.argmax()), bad.shape)
        value: Any = chunk[place]
        value = value.item() if isinstance(value, np.generic) else value
        expected = "str or bytes. Replace missing values first"
        if self.dtype != tf.string:
            target = np.dtype(self.dtype.as_numpy_dtype)
            expected = expected_of(value, chunk.dtype, target)
        fail(
            int(place[0]),
            f"holds {value!r:.80} ({chunk.dtype}), expected {expected}.",
        )


def cast_for(dtype: np.dtype, path: str, wanted: Wanted = None) -> Cast:
    """Returns the conversion for rows of a NumPy dtype.

    Args:
        dtype: Expected dtype of chunks when they are read.
        path: Names the input in messages.
        wanted: What the model declares for this input.

    Raises:
        ValueError: If TensorFlow has no such dtype.
    """
    if is_string(dtype):
        return Cast(tf.string, path)
    # TensorFlow has no counterpart of NumPy's longdouble.
    known = as_tf(dtype) or (tf.float64 if dtype.kind == "f" else None)
    if known is None or dtype.names is not None or dtype.kind == "O":
        raise _refused(dtype, path)
    if not isinstance(wanted, tf.DType):
        is_float = kind_of(dtype) == "f"
        return Cast(_default_float(known, wanted) if is_float else known, path)
    return Cast(_target(known, wanted), path)


def is_string(dtype: np.dtype) -> bool:
    """Whether arrays of a dtype hold nothing but strings."""
    # h5py marks variable-length strings, which it reads as objects, in the metadata.
    vlen = (dtype.metadata or {}).get("vlen")
    return dtype.kind in "UST" or vlen is str or vlen is bytes


def _default_float(stored: tf.DType, wanted: Undeclared | None) -> tf.DType:
    if wanted is None:
        return tf.as_dtype(keras.config.floatx())
    return stored if wanted.floats is None else wanted.floats


def _target(stored: tf.DType, wanted: tf.DType) -> tf.DType:
    """The declared dtype, or the stored one if the model can convert it itself."""
    if wanted.is_complex and not stored.is_complex:
        wanted = wanted.real_dtype
    mine, theirs = (np.dtype(dtype.as_numpy_dtype) for dtype in (stored, wanted))
    kinds = kind_of(mine), kind_of(theirs)
    if "" in kinds or "O" in kinds or "c" in kinds and kinds != ("c", "c"):
        return stored
    stays = kinds[0] in "bi" and kinds[1] in "if" and holds_range(mine, theirs)
    return stored if stays else wanted


def _encoded(chunk: np.ndarray) -> tuple[np.ndarray, np.ndarray | None]:
    """Returns an object array of `bytes`, and which values are not strings, if any."""
    flat = chunk.ravel().tolist()
    bad = np.array([not isinstance(value, (bytes, str)) for value in flat], bool)
    if bad.any():
        return chunk, bad.reshape(chunk.shape)
    encoded = np.empty(chunk.size, dtype=object)
    encoded[:] = [v if isinstance(v, bytes) else v.encode() for v in flat]
    return encoded.reshape(chunk.shape), None


def _refused(dtype: np.dtype, path: str) -> ValueError:
    remedy = _REMEDIES.get(dtype.kind, "Convert it with .astype(...).")
    return ValueError(
        f"{path} has dtype={dtype}, expected numbers, bools or strings. {remedy}"
    )


_REMEDIES = {
    "O": "Use .astype(str) for strings, .astype('float32') for numbers, or "
    "np.stack(x) for a sequence of arrays of one shape.",
    "M": "Convert dates to numbers, e.g. x.astype('int64').",
    "m": "Convert durations to numbers, e.g. x.astype('int64').",
    "V": "Pass the fields of a structured array as a dict: "
    "{name: x[name] for name in x.dtype.names}.",
}
