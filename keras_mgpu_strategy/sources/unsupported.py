"""Recognises optional packages' classes by name, imports none, and refuses leaves."""

import numbers
from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf


def is_of(package: str, *names: str) -> Callable[[Any], bool]:
    """Returns a test for objects of these (or any) classes of a package."""

    def is_one(x: Any) -> bool:
        theirs = [c for c in type(x).__mro__ if c.__module__.split(".")[0] == package]
        return any(not names or cls.__name__ in names for cls in theirs)

    return is_one


def refuse(x: Any, path: str) -> None:
    """Raises `TypeError` or `ValueError` with the remedy if `x` must be converted."""
    for error, remedies in ((TypeError, _NO_ARRAYS), (ValueError, _NO_ROWS)):
        for applies, remedy in remedies.items():
            if applies(x):
                is_short = isinstance(x, numbers.Number | np.generic | str | bytes)
                shown = f" {x!r:.40}" if is_short else ""
                raise error(f"{path} is {type(x).__name__}{shown}: {remedy}")


def _is(*types: type) -> Callable[[Any], bool]:
    return lambda x: isinstance(x, types)


_NO_ARRAYS = {
    _is(type): "expected an array. It is a class; pass an instance of it.",
    _is(type(None)): "expected an array, or several of which those for optional inputs "
    "may be None.",
    _is(str, bytes): "pass strings that are data as np.asarray(list_of_strings). To "
    "read a file, open it first, e.g. np.load(path, mmap_mode='r').",
    _is(tf.RaggedTensor): "expected rows of one shape. Pass pad=mgpu.Pad(), or "
    "x.to_tensor().",
    _is(np.ma.MaskedArray): "expected an array without a mask. Pass x.filled(value).",
    is_of("polars", "LazyFrame"): "expected rows that are there. Pass x.collect().",
    is_of("pyarrow", "Array", "ChunkedArray"): "expected a table or an array of NumPy. "
    "Pass pyarrow.table({'x': x}) alone, or x.to_numpy(zero_copy_only=False), which "
    "makes a null NaN. For lists of unequal length, pass pad=mgpu.Pad().",
    is_of("pyarrow", "RecordBatchReader"): "expected a table, which can be read again. "
    "Pass x.read_all().",
    is_of("pyarrow", "Dataset", "Scanner"): "expected a table. Pass x.to_table(), or "
    "the paths of the files.",
    is_of("datasets", "IterableDataset"): "expected batches. Pass "
    "x.with_format('numpy').iter(batch_size=1024).",
    is_of("pyarrow", "Table", "RecordBatch"): "expected an array. Pass a table alone: "
    "its columns are read by the names of the model's inputs.",
    is_of("datasets", "Dataset"): "expected an array. Pass one split alone, such as "
    "x['train']: its columns are read by the names of the model's inputs.",
    lambda x: isinstance(x, keras.KerasTensor) or tf.is_symbolic_tensor(x): "expected "
    "values. It is a symbolic tensor, which holds none.",
}
_NO_ROWS = {
    _is(numbers.Number, np.generic): "expected an array with a batch axis. A list or "
    "tuple is read as one array per model input; pass a list of numbers as "
    "np.asarray(x).",
    lambda x: is_of("h5py")(x) and getattr(x, "shape", ()) is None: "expected an "
    "array. It is an empty value of HDF5 (h5py.Empty), which has no rows; leave it "
    "out.",
}
