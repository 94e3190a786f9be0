"""Leaves that are refused, each with the remedy."""

import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def refuse(x: Any, path: str) -> None:
    """Raises if `x` is of a kind that has rows but must be converted first.

    Raises:
        TypeError: For ragged, masked and symbolic tensors, text and None.
        ValueError: For a single number where an array is expected.
    """
    for applies, error, text in _REFUSED:
        if applies(x):
            raise error(f"{path} is {_describe(x)}: {text}")


def _describe(x: Any) -> str:
    shown = (
        f" {x!r:.40}" if isinstance(x, (numbers.Number, np.generic, str, bytes)) else ""
    )
    return f"{type(x).__name__}{shown}"


def _is_symbolic(x: Any) -> bool:
    return isinstance(x, keras.KerasTensor) or tf.is_symbolic_tensor(x)


def _is(*types: type) -> Any:
    return lambda x: isinstance(x, types)


_REFUSED = (
    (
        _is(type),
        TypeError,
        "expected an array. It is a class; pass an instance of it.",
    ),
    (
        lambda x: x is None,
        TypeError,
        "expected an array. Leave out the inputs that the model does not need.",
    ),
    (
        _is(str, bytes),
        TypeError,
        "expected an array. Open a file first, e.g. np.load(path, mmap_mode='r'); "
        "pass strings as np.asarray(list_of_strings).",
    ),
    (
        _is(numbers.Number, np.generic),
        ValueError,
        "expected an array with a batch axis. A list or tuple is read as one array "
        "per model input; pass a list of numbers as np.asarray(x).",
    ),
    (
        _is(tf.RaggedTensor),
        TypeError,
        "expected rows of one shape. Pass x.to_tensor(), or batches of one shape "
        "each from a generator or tf.data.Dataset.",
    ),
    (
        _is(np.ma.MaskedArray),
        TypeError,
        "expected an array without a mask. Pass x.filled(value).",
    ),
    (
        _is_symbolic,
        TypeError,
        "expected values. It is a symbolic tensor, which holds none.",
    ),
)
