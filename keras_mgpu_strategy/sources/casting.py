"""Which dtype rows have when they reach the model: the rule of docs/guide/inputs.md.

All chunks of an input have one dtype. A value that it cannot hold is never changed: a
`BadRow` names it. Strings are object arrays of `bytes`, which keep trailing zero bytes.
A chunk is returned itself if nothing has to change. Objects are never unpickled.
"""

import dataclasses
from typing import Any, TypeAlias

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.row_errors import Fail
from keras_mgpu_strategy.sources.safe_casts import (
    Converted,
    as_tf,
    convert,
    expected_of,
    holds_range,
    is_convertible,
    kind_of,
)
from keras_mgpu_strategy.types import Undeclared

Wanted: TypeAlias = tf.DType | Undeclared | None
"""What a model takes; None for a model that declares nothing and computes in floatx."""


@dataclasses.dataclass(frozen=True, slots=True)
class Cast:
    """How chunks of an input get the dtype that a model is given."""

    dtype: tf.DType

    def convert(self, chunk: np.ndarray, fail: Fail) -> np.ndarray:
        """Returns rows for TensorFlow; `fail` is called for one that cannot be kept."""
        target = np.dtype(self.dtype.as_numpy_dtype)
        is_text = self.dtype == tf.string
        if chunk.dtype == target and not is_text:
            return chunk
        values, bad = _encoded(chunk) if is_text else convert(chunk, target)
        if bad is None:
            return values
        place = np.unravel_index(int(bad.argmax()), bad.shape)
        value: Any = chunk[place]
        value = value.item() if isinstance(value, np.generic) else value
        expected = "str or bytes. Replace missing values first"
        if not is_text:
            expected = expected_of(value, chunk.dtype, target)
        what = f"holds {value!r:.80} ({chunk.dtype}), expected {expected}."
        fail(int(place[0]), what)


def cast_for(dtype: np.dtype, path: str, wanted: Wanted = None) -> Cast:
    """Returns the conversion of rows to `wanted`; ValueError if TensorFlow has none."""
    if is_string(dtype):
        return Cast(tf.string)
    # TensorFlow has no counterpart of NumPy's longdouble.
    known = as_tf(dtype) or (tf.float64 if dtype.kind == "f" else None)
    if known is None or dtype.names is not None or dtype.kind == "O":
        raise ValueError(
            f"{path} has dtype={dtype}, expected numbers, bools or strings. "
            f"{_REMEDIES.get(dtype.kind, 'Convert it with .astype(...).')}"
        )
    if isinstance(wanted, tf.DType):
        return Cast(_target(known, wanted))
    floats = keras.config.floatx() if wanted is None else wanted.floats
    if floats is None or kind_of(dtype) != "f":
        return Cast(known)
    return Cast(tf.as_dtype(floats))


def is_string(dtype: np.dtype) -> bool:
    """Whether arrays of a dtype hold nothing but strings."""
    # h5py marks variable-length strings, which it reads as objects, in the metadata.
    vlen = (dtype.metadata or {}).get("vlen")
    return dtype.kind in "UST" or vlen is str or vlen is bytes


def _target(stored: tf.DType, wanted: tf.DType) -> tf.DType:
    """The declared dtype, or the stored one if the model can convert it itself."""
    if wanted.is_complex and not stored.is_complex:
        wanted = wanted.real_dtype
    mine, theirs = (np.dtype(dtype.as_numpy_dtype) for dtype in (stored, wanted))
    if not is_convertible(mine, theirs):
        return stored
    is_narrow = kind_of(mine) in "bi" and kind_of(theirs) in "if"
    return stored if is_narrow and holds_range(mine, theirs) else wanted


def _encoded(chunk: np.ndarray) -> Converted:
    flat = chunk.ravel().tolist()
    bad = np.array([not isinstance(value, (bytes, str)) for value in flat], bool)
    if bad.any():
        return chunk, bad.reshape(chunk.shape)
    encoded = np.empty(chunk.size, dtype=object)
    encoded[:] = [v if isinstance(v, bytes) else v.encode() for v in flat]
    return encoded.reshape(chunk.shape), None


_REMEDIES = {
    "O": "Use .astype(str) for strings, .astype('float32') for numbers, or "
    "np.stack(x) for a sequence of arrays of one shape. For rows of unequal length, "
    "pass pad=mgpu.Pad().",
    "M": "Convert dates to numbers, e.g. x.astype('int64').",
    "m": "Convert durations to numbers, e.g. x.astype('int64').",
    "V": "Pass the fields of a structured array as a dict: "
    "{name: x[name] for name in x.dtype.names}.",
}
