"""What distinguishes the rows of arrays and streams from other rows.

Guarantees:

* Values are compared as the model is given them: the same rows in another dtype, or in
  another kind of array, are the same.
* Arrays of up to 256 MiB are read whole, larger ones by samples; for a memory map of a
  file, its modification time counts, too. Of unknown array-likes and of streams, only
  the first row can be checked without reading more than a run does.
"""

import functools
import math
from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.digests.samples import (
    digest_of_array,
    digest_of_rows,
    is_large,
)
from keras_mgpu_strategy.sources.contents import Contents
from keras_mgpu_strategy.sources.leaf import Leaf, Memory
from keras_mgpu_strategy.sources.nests import leaves
from keras_mgpu_strategy.sources.rebatch import Rows
from keras_mgpu_strategy.types import Nest, Origin, Source


def origin_of_arrays(x: Nest, flat: Sequence[Leaf], num_rows: int) -> Origin:
    """Distinguishes arrays from others.

    Args:
        x: As the user passed them.
        flat: The same, as they are read.
        num_rows: Number of rows that are read.
    """
    about: dict[str, Any] = {}
    for leaf in flat:
        about[f"first row of {leaf.path}"] = _first(leaf, num_rows)
        about[f"values of {leaf.path}"] = _digest(leaf, num_rows)
    contents = Contents(list(_mapped_files(x)))
    if not is_large(contents.num_bytes):
        return Origin(about)
    return Origin(about, contents.times(), contents.digest)


def origin_of_stream(first: Rows | None) -> Origin:
    """Distinguishes a stream from others.

    Args:
        first: Its first rows; None if there are none.
    """
    flat = [] if first is None else first.flat
    return Origin({"first row": [digest_of_array(array[:1]) for array in flat]})


def origin_of(source: Source) -> Origin:
    """Distinguishes what a source reads from what others read."""
    find = getattr(source, "origin", None)
    if find is not None:
        return find()
    return Origin({"files of the input": str(getattr(source, "identity", ""))})


def _first(leaf: Leaf, num_rows: int) -> str:
    return digest_of_array(_readable(leaf, 0, min(1, num_rows)))


def _digest(leaf: Leaf, num_rows: int) -> str | None:
    """Returns a digest of the values; None if reading them may take long, or fail."""
    if leaf.memory is Memory.UNKNOWN:
        return None
    dtype = leaf.spec.dtype
    row_bytes = 0 if dtype == tf.string else dtype.size * math.prod(leaf.shape[1:])
    read = functools.partial(_readable, leaf)
    return digest_of_rows(read, num_rows, row_bytes)


def _readable(leaf: Leaf, start: int, stop: int) -> np.ndarray:
    try:
        return leaf.read(start, stop)
    except ValueError:  # a row that cannot be used, which the run reports
        return np.array("unusable")


def _mapped_files(x: Nest) -> Iterator[str]:
    """The files of memory maps that show them unchanged."""
    for _, leaf in leaves(x):
        if isinstance(leaf, np.memmap) and leaf.mode == "r" and leaf.filename:
            yield str(leaf.filename)
