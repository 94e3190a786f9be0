"""Leaves that are refused, each with the remedy."""

import numbers
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.foreign import is_of


def refuse(x: Any, path: str) -> None:
    """Raises if `x` is of a kind that must be converted first.

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


def _is_empty_hdf5(x: Any) -> bool:
    return is_of("h5py")(x) and getattr(x, "shape", ()) is None


_REFUSED = (
    (
        _is(type),
        TypeError,
        "expected an array. It is a class; pass an instance of it.",
    ),
    (
        lambda x: x is None,
        TypeError,
        "expected an array, or several of which those for optional inputs may be None.",
    ),
    (
        _is(str, bytes),
        TypeError,
        "pass strings that are data as np.asarray(list_of_strings). To read a file, "
        "open it first, e.g. np.load(path, mmap_mode='r').",
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
        _is_empty_hdf5,
        ValueError,
        "expected an array. It is an empty value of HDF5 (h5py.Empty), which has no "
        "rows; leave it out.",
    ),
    (
        is_of("polars", "LazyFrame"),
        TypeError,
        "expected rows that are there. Pass x.collect().",
    ),
    (
        is_of("pyarrow", "Array", "ChunkedArray"),
        TypeError,
        "expected a table or an array of NumPy. Pass pyarrow.table({'x': x}) alone, or "
        "x.to_numpy(zero_copy_only=False), which makes a null NaN.",
    ),
    (
        is_of("pyarrow", "RecordBatchReader"),
        TypeError,
        "expected a table, which can be read again. Pass x.read_all().",
    ),
    (
        is_of("pyarrow", "Dataset", "Scanner"),
        TypeError,
        "expected a table. Pass x.to_table(), or the paths of the files.",
    ),
    (
        is_of("datasets", "IterableDataset"),
        TypeError,
        "expected batches. Pass x.with_format('numpy').iter(batch_size=1024).",
    ),
    (
        is_of("pyarrow", "Table", "RecordBatch"),
        TypeError,
        "expected an array. Pass a table alone: its columns are read by the names of "
        "the model's inputs.",
    ),
    (
        is_of("datasets", "Dataset"),
        TypeError,
        "expected an array. Pass one split alone, such as x['train']: its columns are "
        "read by the names of the model's inputs.",
    ),
    (
        _is_symbolic,
        TypeError,
        "expected values. It is a symbolic tensor, which holds none.",
    ),
)
