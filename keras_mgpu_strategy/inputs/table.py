"""Which adapter reads which kind of input: one row each.

Guarantees:

* Everything that predict methods take as data goes through this table, and what is
  not in it is refused with the list of what is.
"""

import math
from collections.abc import Iterator
from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy.inputs.arrays import ACCEPTED, ArraySource, is_array_like
from keras_mgpu_strategy.inputs.datasets import dataset_source
from keras_mgpu_strategy.inputs.nests import is_nest
from keras_mgpu_strategy.inputs.refusals import refuse
from keras_mgpu_strategy.inputs.streams import (
    iterator_source,
    sequence_source,
    warn_short,
)
from keras_mgpu_strategy.inputs.validate import check_batch_size, check_steps
from keras_mgpu_strategy.types import Nest, Source


def as_source(
    x: Any, *, steps: int | None = None, batch_size: int | None = None
) -> Source:
    """Returns the rows of any input that predict methods take.

    Args:
        x: NumPy arrays, tensors, pandas objects or other array-likes with `shape`
            and slicing on axis 0 (memory maps, h5py, zarr), or dicts, lists and
            tuples of them, one per model input; or a batched `tf.data.Dataset`, a
            `keras.utils.PyDataset`, a generator or iterator of batches, each
            `x`, `(x,)`, `(x, y)` or `(x, y, sample_weight)`.
        steps: Number of batches to read; None for all. Batches are the user's own,
            or `batch_size` rows of arrays.
        batch_size: Rows of a batch of arrays, for `steps` alone. As in Keras, if it
            is None the rows are divided over `steps` batches, so that all are read.

    Returns:
        The source. Its `spec` is None for an iterator or PyDataset without a batch.

    Raises:
        TypeError: If `x`, or a leaf of it, is of a kind that cannot be read.
        ValueError: If lengths, dtypes, `steps` or `batch_size` do not fit.
    """
    check_batch_size(batch_size, x)
    check_steps(steps)
    refuse(x, "x")
    for applies, adapter in _SOURCES:
        if applies(x):
            return adapter(x, steps, batch_size)
    raise TypeError(
        f"Cannot read rows from {type(x).__name__}, expected {ACCEPTED}, dicts, lists "
        "or tuples of these, a batched tf.data.Dataset, a keras.utils.PyDataset, or a "
        "generator or iterator of batches (iter(x) of an iterable)."
    )


def _arrays(x: Nest, steps: int | None, batch_size: int | None) -> Source:
    if steps is None or batch_size is None:
        return ArraySource(x)
    source = ArraySource(x, limit=steps * batch_size)
    warn_short(steps, math.ceil(source.num_rows / batch_size))
    return source


def _is_sequence(x: Any) -> bool:
    has_length = hasattr(x, "__len__") or hasattr(x, "num_batches")
    return has_length and hasattr(x, "__getitem__") and not is_array_like(x)


_SOURCES = (
    (
        lambda x: isinstance(x, tf.data.Dataset),
        lambda x, steps, batch_size: dataset_source(x, steps),
    ),
    (
        lambda x: isinstance(x, keras.utils.PyDataset),
        lambda x, steps, batch_size: sequence_source(x, steps),
    ),
    (lambda x: is_nest(x) or is_array_like(x), _arrays),
    (
        lambda x: isinstance(x, Iterator),
        lambda x, steps, batch_size: iterator_source(x, steps),
    ),
    (_is_sequence, lambda x, steps, batch_size: sequence_source(x, steps)),
)
