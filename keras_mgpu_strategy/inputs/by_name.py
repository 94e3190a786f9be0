"""Inputs that other processes open themselves, so that no row passes through this one.

Rows are named only if starting to read at any row is cheap; others are sent. A memory
map is replaced by its file only if it is all of that file, unchanged. A process that
finds different files raises an error.
"""

import dataclasses
import functools
import hashlib
import mmap
import os
import pathlib
import uuid
from collections.abc import Iterator
from typing import Any

import numpy as np

from keras_mgpu_strategy import files
from keras_mgpu_strategy.element_forms import map_nest
from keras_mgpu_strategy.formats.by_path import file_input, names_files
from keras_mgpu_strategy.formats.images.source import ImageSource
from keras_mgpu_strategy.formats.npy.read import Npy, NpyNest
from keras_mgpu_strategy.inputs.forms import (
    ARRAYS,
    declared_of,
    in_array_form,
    select_inputs,
    with_arrays,
)
from keras_mgpu_strategy.sources.wrapping import Wrapped
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.types import (
    X_ALONE,
    Feeding,
    InputBatch,
    NamedRows,
    Nest,
    Source,
)

_CHEAP_FROM_ANY_ROW = (files.Npy, NpyNest, files.Hdf5, files.Zarr, files.Images)
_MAPPINGS = pathlib.Path("/proc/self/maps")


def named_rows(
    x: Any, source: Source, input_spec: Nest, feeding: Feeding = X_ALONE
) -> Source:
    """Returns the source of `x` with names of rows in place of rows, if possible."""
    x = with_arrays(x, input_spec, feeding)
    opened = file_input(x) if names_files(x) else x
    if isinstance(opened, np.memmap) and (path := _file_of(opened)) is not None:
        opened = files.Npy(path)
        input_spec = declared_of(feeding, ARRAYS, input_spec)
    if not isinstance(opened, _CHEAP_FROM_ANY_ROW):
        return source
    opened = _absolute(opened)
    identity = _identity(opened.open_rows(input_spec))
    open_fn = functools.partial(_open, opened, input_spec, feeding, identity)
    return _Named(source, open_fn)


def _file_of(x: np.memmap) -> str | None:
    """The `.npy` file that a memory map shows unchanged; None if there is none."""
    if x.mode != "r" or not isinstance(x.base, mmap.mmap) or x.filename is None:
        return None  # perhaps changed in this process, or a part of another map
    path = str(x.filename)
    try:
        whole = np.load(path, mmap_mode="r", allow_pickle=False)
    except (OSError, ValueError):
        return None
    same = (whole.shape, whole.dtype, whole.strides, getattr(whole, "offset", None))
    is_all = same == (x.shape, x.dtype, x.strides, x.offset)
    return path if is_all and _is_still(path, x) else None


def _is_still(path: str, x: np.memmap) -> bool:
    """Whether the name still leads to the mapped file: it may have been replaced."""
    if not x.nbytes or not _MAPPINGS.exists():
        return False
    for line in os.fsdecode(_MAPPINGS.read_bytes()).splitlines():
        addresses, _, _, _, inode, *_ = line.split()
        first, last = (int(address, 16) for address in addresses.split("-"))
        if first <= x.ctypes.data < last:
            return int(inode) == os.stat(path).st_ino
    return False


def _absolute(opened: Any) -> Any:
    """The input with absolute paths: other processes may work in other folders."""

    def whole(path: Any) -> Any:
        if path is None:  # an absent input
            return None
        is_input = isinstance(path, Npy)
        return _absolute(path) if is_input else os.path.abspath(expanded(path))

    fields = [name for name in ("path", "paths", "files") if hasattr(opened, name)]
    paths = {name: map_nest(whole, getattr(opened, name)) for name in fields}
    return dataclasses.replace(opened, **paths)


def _open(
    opened: files.FileInput, input_spec: Nest, feeding: Feeding, identity: str
) -> Source:
    try:
        source = opened.open_rows(input_spec)
    except OSError as error:
        error.add_note(f"Expected on every machine that runs the model: {opened}.")
        raise
    found = _identity(source)
    if found != identity:
        raise ValueError(
            f"{opened} is not what it was where the run began: found {found}, expected "
            f"{identity}. It must be the same on every machine, and not change while "
            "it is read."
        )
    if feeding.whole or feeding.raw:
        return in_array_form(source, feeding)
    return select_inputs(source, input_spec)


def _identity(source: Any) -> str:
    """Differs if the files are different; for images, only the names are compared."""
    if not isinstance(source, ImageSource):
        return str(source.identity)
    names = source.marks(0, source.num_rows).names
    digest = hashlib.sha256(repr(names).encode("utf-8", "surrogateescape")).hexdigest()
    return f"{source.num_rows} images, sha256 {digest[:16]}"


class _Named(Wrapped):
    def __init__(self, source: Source, open_fn: Any) -> None:
        super().__init__(source)
        self._rows = functools.partial(NamedRows, uuid.uuid4().hex, open_fn)

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        end = self.num_rows or 0
        for first in range(start, end, batch_size):
            stop = min(first + batch_size, end)
            yield InputBatch(first, stop - first, self._rows(first, stop))
