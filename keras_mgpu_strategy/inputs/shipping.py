"""Inputs that other processes open themselves, so that no row passes through this one.

Guarantee: rows are named only where reading from any row on is cheap; others travel.
"""

import dataclasses
import functools
import mmap
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mgpu_strategy.inputs import files
from keras_mgpu_strategy.inputs.files.bare import file_input, names_files
from keras_mgpu_strategy.inputs.files.npy import NpyNest
from keras_mgpu_strategy.inputs.matching import select_inputs
from keras_mgpu_strategy.types import InputBatch, NamedRows, Nest, Source

_CHEAP_FROM_ANY_ROW = (files.Npy, NpyNest, files.Hdf5, files.Zarr, files.Images)


def named_rows(x: Any, source: Source, input_spec: Nest) -> Source:
    """Returns the source with names of rows in place of rows, where that can be.

    Args:
        x: The input as the user gave it.
        source: Its rows.
        input_spec: What the model declares.
    """
    opened = file_input(x) if names_files(x) else _mapped(x)
    if not isinstance(opened, _CHEAP_FROM_ANY_ROW):
        return source
    open_fn = functools.partial(_open, opened, input_spec)
    return _Named(source, uuid.uuid4().hex, open_fn)


def _mapped(x: Any) -> Any:
    """The file of an array that is mapped from all of a `.npy` file, or x."""
    if not isinstance(x, np.memmap) or not isinstance(x.base, mmap.mmap):
        return x
    path = str(x.filename)
    try:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return x
    same = (whole.shape, whole.dtype, whole.offset, whole.strides)
    if not isinstance(whole, np.memmap):
        return x
    return files.Npy(path) if same == (x.shape, x.dtype, x.offset, x.strides) else x


def _open(opened: files.FileInput, input_spec: Nest) -> Source:
    return select_inputs(opened.open_rows(input_spec), input_spec)


@dataclasses.dataclass(frozen=True)
class _Named:
    """A source whose batches name their rows."""

    source: Source
    key: str
    open_fn: Any

    @property
    def num_rows(self) -> int | None:
        """As that of the source."""
        return self.source.num_rows

    @property
    def spec(self) -> Nest:
        """As that of the source."""
        return self.source.spec

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields names of rows, see `types.Source`."""
        end = self.source.num_rows or 0
        for first in range(start, end, batch_size):
            stop = min(first + batch_size, end)
            rows = NamedRows(self.key, self.open_fn, first, stop)
            yield InputBatch(first, stop - first, rows)
