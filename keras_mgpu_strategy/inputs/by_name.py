"""Inputs that other processes open themselves, so that no row passes through this one.

Guarantees:

* Rows are named only if starting to read at any row is cheap; others are sent.
* A memory map is replaced by its file only if it is all of that file, unchanged.
* A process that finds different files from this one raises an error.
"""

import dataclasses
import functools
import hashlib
import mmap
import os
import pathlib
import uuid
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy import files
from keras_mgpu_strategy.formats.by_path import file_input, names_files
from keras_mgpu_strategy.formats.images.source import ImageSource
from keras_mgpu_strategy.formats.npy.read import Npy, NpyNest
from keras_mgpu_strategy.inputs.forms import ARRAYS, declared_of, lists_as_arrays
from keras_mgpu_strategy.inputs.selecting import in_array_form, select_inputs
from keras_mgpu_strategy.inputs.texts import with_texts
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
_PATHS = ("path", "paths", "files")
_MAPPINGS = pathlib.Path("/proc/self/maps")


def named_rows(
    x: Any, source: Source, input_spec: Nest, feeding: Feeding = X_ALONE
) -> Source:
    """Returns the source with names of rows in place of rows, if possible.

    Args:
        x: The input as the user gave it.
        source: Its rows.
        input_spec: What the model declares.
        feeding: Which part of the input it is given.
    """
    x = lists_as_arrays(x) if feeding.raw else with_texts(x, input_spec)
    opened = file_input(x) if names_files(x) else x
    if isinstance(opened, np.memmap) and (path := _file_of(opened)) is not None:
        opened = files.Npy(path)
        input_spec = declared_of(feeding, ARRAYS, input_spec)
    if not isinstance(opened, _CHEAP_FROM_ANY_ROW):
        return source
    opened = _absolute(opened)
    identity = _identity(opened.open_rows(input_spec))
    open_fn = functools.partial(_open, opened, input_spec, feeding, identity)
    return _Named(source, uuid.uuid4().hex, open_fn)


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
    if same != (x.shape, x.dtype, x.strides, x.offset) or not _is_still(path, x):
        return None
    return path


def _is_still(path: str, x: np.memmap) -> bool:
    """Whether the name still leads to the mapped file: it may have been replaced."""
    if not x.nbytes or not _MAPPINGS.exists():
        return False
    address, inode = x.ctypes.data, os.stat(path).st_ino
    for line in os.fsdecode(_MAPPINGS.read_bytes()).splitlines():
        first, _, last = line.split()[0].partition("-")
        if int(first, 16) <= address < int(last, 16):
            return int(line.split()[4]) == inode
    return False


def _absolute(opened: Any) -> Any:
    """The input with absolute paths: other processes may work in other folders."""
    paths = {
        name: _whole(getattr(opened, name)) for name in _PATHS if hasattr(opened, name)
    }
    return dataclasses.replace(opened, **paths)


def _whole(paths: Any) -> Any:
    if paths is None:  # an absent input
        return None
    if isinstance(paths, Npy):
        return _absolute(paths)
    if isinstance(paths, Mapping):
        return {key: _whole(path) for key, path in paths.items()}
    if isinstance(paths, (list, tuple)):
        return tuple(map(_whole, paths))
    return os.path.abspath(expanded(paths))


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


@dataclasses.dataclass(frozen=True)
class _Named:
    """A source whose batches name their rows."""

    source: Source
    key: str
    open_fn: Any

    @property
    def num_rows(self) -> int | None:
        """The source's number of rows."""
        return self.source.num_rows

    @property
    def spec(self) -> Nest:
        """The source's spec."""
        return self.source.spec

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        """Yields names of rows, see `types.Source`."""
        end = self.source.num_rows or 0
        for first in range(start, end, batch_size):
            stop = min(first + batch_size, end)
            rows = NamedRows(self.key, self.open_fn, first, stop)
            yield InputBatch(first, stop - first, rows)
