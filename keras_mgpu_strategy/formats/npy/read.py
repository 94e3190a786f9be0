"""`.npy` files, mapped into memory, and `.npz` files: arrays by name.

Rows are read as they are used, but compressed arrays whole, when a file is opened.
Nothing is unpickled, no memory is allocated for more than a file can hold, and a
truncated file is an error before any row is read.
"""

import dataclasses
import math
import os
import pathlib
import struct
import zipfile
from collections.abc import Mapping
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.choosing import Names
from keras_mgpu_strategy.formats.file_source import (
    FileSource,
    naming,
    open_arrays,
    open_named,
)
from keras_mgpu_strategy.formats.npy.header import open_mapped, read_header
from keras_mgpu_strategy.formats.paths import FileList, PathLike, is_path, one_file
from keras_mgpu_strategy.formats.registry import NPY
from keras_mgpu_strategy.sources.leaf import MappedArray
from keras_mgpu_strategy.sources.nests import leaves, pack, skeleton
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MOST_RATIO = 1032
"""The most bytes that deflate can make of one."""
_PIECE_BYTES = 2**20


@short_traceback
@dataclasses.dataclass(frozen=True)
class Npy:
    """Rows of a `.npy` file.

    Args:
        path: A file that `numpy.save` wrote, of an array of shape `(rows, ...)`:
            numbers, bools or strings.
    """

    path: PathLike

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the file, see `FileInput`. Rows keep their shape.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is not a `.npy` file, is truncated, or holds no rows.
        """
        files = one_file(self.path, ".npy")
        return open_arrays(files, _open_npy(files.files[0]), input_spec)


@dataclasses.dataclass(frozen=True)
class NpyNest:
    """Rows of several `.npy` files: paths or `Npy`, in a dict by model input."""

    files: Mapping[str, Any]

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens all files, see `Npy.open_rows`. All must have as many rows."""
        found = {
            name: one_file(leaf.path if isinstance(leaf, Npy) else leaf, ".npy")
            for name, leaf in leaves(self.files)
        }
        paths = tuple(file.files[0] for file in found.values())
        nest = pack(skeleton(self.files), list(map(_open_npy, paths)))
        where = ", ".join(map(str, paths))
        return open_arrays(FileList(paths, tuple(found), where), nest, input_spec)


@short_traceback
@dataclasses.dataclass(frozen=True)
class Npz:
    """Rows of the arrays in a `.npz` file.

    Args:
        path: A file that `numpy.savez` or `numpy.savez_compressed` wrote; the latter
            must fit into memory.
        arrays: Names of the arrays to read: one, one per model input in the order of
            the model, or a dict by input. None takes those named like the model's
            inputs, or the only one.
    """

    path: PathLike
    arrays: Names = None

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the file, see `FileInput`. Rows keep their shape.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged, holds objects, or does not fit the model.
        """
        files = one_file(self.path, ".npz")
        path = files.files[0]
        with naming(path, "be read as a .npz file"), zipfile.ZipFile(path) as archive:
            infos = archive.infolist()
            members = {info.filename.removesuffix(".npy"): info for info in infos}
            if len(members) < len(infos):
                raise ValueError("it holds several arrays of one name. Save it again.")

            def find(name: str) -> MappedArray | np.ndarray:
                return _member(archive, path, members[name])

            return open_named(files, "arrays", members, self.arrays, input_spec, find)


def is_npy(x: Any) -> bool:
    """Whether `x` is `Npy` or a path to a `.npy` file."""
    return isinstance(x, Npy) or is_path(x) and NPY.is_of(x)


def _open_npy(path: pathlib.Path) -> MappedArray:
    expected = "as a .npy file of plain numbers or strings. Write it with numpy.save"
    with naming(path, f"be read {expected}"):
        array = open_mapped(path)
    if array.ndim == 0:
        raise ValueError(
            f"{path} holds a single value. Expected an array of shape (rows, ...)."
        )
    return MappedArray(array)


def _member(
    archive: zipfile.ZipFile, path: pathlib.Path, info: zipfile.ZipInfo
) -> MappedArray | np.ndarray:
    with naming(f"{path}, {info.filename},", "be read as an array"):
        with archive.open(info) as file:
            header = read_header(file)
        header.check_length(info.file_size)
        if info.compress_type == zipfile.ZIP_STORED and math.prod(header.shape):
            return MappedArray(header.map(path, _data_offset(path, info)))
        # The archive only claims the size that memory is allocated for.
        packed = min(info.compress_size, os.path.getsize(path))
        if info.file_size > _MOST_RATIO * (packed + 1):
            raise ValueError(
                f"{packed} bytes cannot be unpacked to the {info.file_size} "
                "that it claims. Expected a file as numpy.savez_compressed writes it."
            )
        with archive.open(info) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            # Reading to the end makes zipfile compare the checksum.
            while file.read(_PIECE_BYTES):
                pass
            return array


def _data_offset(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin; the local header records its own length."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        head = file.read(_LOCAL_HEADER.size)
    _, *lengths = _LOCAL_HEADER.unpack(head)
    return info.header_offset + len(head) + sum(lengths)
