"""Which dtype rows have when they reach the model.

Guarantees:

* The rule is that of Keras for arrays, whatever kind of input rows come from:
  floats become `keras.config.floatx()`; integers, bools and complex numbers stay.
* Strings become object arrays of `bytes` (UTF-8), the one form that TensorFlow
  reads as `tf.string` without losing trailing zero bytes.
* A conversion touches the chunk it is given, never the whole input, and returns
  the same memory where nothing has to change.
* Objects are never unpickled or guessed at: they are refused.
"""

import dataclasses
from collections.abc import Callable

import keras
import numpy as np
import tensorflow as tf


@dataclasses.dataclass(frozen=True, slots=True)
class Cast:
    """How chunks of one input are converted.

    Args:
        dtype: The dtype that the model is given.
        convert: Maps a chunk to an array that TensorFlow reads as `dtype`.
    """

    dtype: tf.DType
    convert: Callable[[np.ndarray], np.ndarray]


def cast_for(dtype: np.dtype, path: str) -> Cast:
    """Returns the conversion for rows of a NumPy dtype.

    Args:
        dtype: What chunks have when they are read.
        path: Names the input in messages.

    Raises:
        ValueError: If TensorFlow has no such dtype.
    """
    for applies, make in _CASTS:
        if applies(dtype):
            return make(dtype, path)
    return _native(dtype, path)


def as_bytes(chunk: np.ndarray) -> np.ndarray:
    """Returns an object array of `bytes`; `str` is encoded as UTF-8."""
    encoded = np.empty(chunk.size, dtype=object)
    encoded[:] = [_encode(value) for value in chunk.ravel().tolist()]
    return encoded.reshape(chunk.shape)


def _encode(value: object) -> bytes:
    if isinstance(value, bytes):
        return value
    if isinstance(value, str):
        return value.encode()
    raise ValueError(
        f"Received {value!r} ({type(value).__name__}) among strings, expected str or "
        "bytes. Replace missing values first."
    )


def _is_string(dtype: np.dtype) -> bool:
    # h5py marks variable-length strings, which it reads as objects, in the metadata.
    vlen = (dtype.metadata or {}).get("vlen")
    return dtype.kind in "UST" or vlen is str or vlen is bytes


def _is_float(dtype: np.dtype) -> bool:
    # bfloat16 and the float8 types have NumPy kind "V".
    return dtype.kind == "f" or bool(
        dtype.kind == "V" and dtype.names is None and _is_tf_float(dtype)
    )


def _is_tf_float(dtype: np.dtype) -> bool:
    known = _tf_dtype(dtype)
    return known is not None and known.is_floating


def _tf_dtype(dtype: np.dtype) -> tf.DType | None:
    try:
        return tf.as_dtype(dtype)
    except TypeError:
        return None


def _string(dtype: np.dtype, path: str) -> Cast:
    del dtype, path
    return Cast(tf.string, as_bytes)


def _floatx(dtype: np.dtype, path: str) -> Cast:
    del dtype, path
    target = tf.as_dtype(keras.config.floatx())
    return Cast(target, _astype(np.dtype(target.as_numpy_dtype)))


def _native(dtype: np.dtype, path: str) -> Cast:
    known = _tf_dtype(dtype)
    if known is None or dtype.names is not None:
        return _refused(dtype, path)
    return Cast(known, _astype(dtype.newbyteorder("=")))


def _astype(target: np.dtype) -> Callable[[np.ndarray], np.ndarray]:
    return lambda chunk: chunk.astype(target, copy=False)


def _refused(dtype: np.dtype, path: str) -> Cast:
    remedy = _REMEDIES.get(dtype.kind, "Convert it with .astype(...).")
    raise ValueError(
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

_CASTS = (
    (_is_string, _string),
    (_is_float, _floatx),
    (lambda dtype: dtype.kind in "OMm", _refused),
)
