"""`.npz` files: arrays by name.

Guarantees:

* Members of an uncompressed file (`numpy.savez`) are mapped into memory in place,
  and their rows read from disk as they are used.
* Compressed members (`numpy.savez_compressed`) cannot be sliced. Those that the model
  needs are read whole when the file is opened, the others not at all.
* Nothing is ever unpickled, and no memory is allocated for more than the file can hold:
  about a thousand times its size if it is compressed.
"""

import dataclasses
import math
import os
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np

from keras_mgpu_strategy.formats.choosing import (
    Names,
    choose,
    in_structure,
    present_inputs,
)
from keras_mgpu_strategy.formats.file_source import FileSource, naming, open_arrays
from keras_mgpu_strategy.formats.npy.header import NpyHeader, check_length, read_header
from keras_mgpu_strategy.formats.paths import PathLike, one_file
from keras_mgpu_strategy.sources.leaf import MappedArray
from keras_mgpu_strategy.types import Nest

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_MOST_RATIO = 1032
"""The most bytes that deflate can make of one."""
_PIECE_BYTES = 2**20


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
            members = _members(archive)
            what = f"{path}, names of arrays"
            input_spec = present_inputs(input_spec, members, self.arrays)
            names = choose(list(members), self.arrays, input_spec, what)
            arrays = [_open(archive, path, members[name]) for name in names]
        nest = in_structure(input_spec, arrays)
        return open_arrays(nest, input_spec, lambda n: files.identity(n, names), path)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    members = {info.filename.removesuffix(".npy"): info for info in infos}
    if len(members) < len(infos):
        raise ValueError("it holds several arrays of one name. Save it again.")
    return members


def _open(
    archive: zipfile.ZipFile, path: pathlib.Path, info: zipfile.ZipInfo
) -> MappedArray | np.ndarray:
    with naming(f"{path}, {info.filename},", "be read as an array"):
        with archive.open(info) as file:
            header = read_header(file)
        check_length(header, info.file_size)
        if info.compress_type == zipfile.ZIP_STORED and math.prod(header.shape):
            return _map(path, info, header)
        _check_ratio(info, os.path.getsize(path))
        with archive.open(info) as file:
            array = np.lib.format.read_array(file, allow_pickle=False)
            # Reading to the end makes zipfile compare the checksum.
            while file.read(_PIECE_BYTES):
                pass
            return array


def _check_ratio(info: zipfile.ZipInfo, archive_size: int) -> None:
    """Checks the size that memory is allocated for: the archive only claims it."""
    packed = min(info.compress_size, archive_size)
    if info.file_size > _MOST_RATIO * (packed + 1):
        raise ValueError(
            f"{packed} bytes cannot be unpacked to the {info.file_size} "
            "that it claims. Expected a file as numpy.savez_compressed writes it."
        )


def _map(path: pathlib.Path, info: zipfile.ZipInfo, header: NpyHeader) -> MappedArray:
    """Maps an uncompressed member in place in the archive."""
    offset = _data_offset(path, info) + header.offset
    order = "F" if header.is_fortran else "C"
    shape, dtype = header.shape, header.dtype
    return MappedArray(
        np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order=order)
    )


def _data_offset(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin; the local header records its own length."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local: tuple[Any, int, int] = _LOCAL_HEADER.unpack(
            file.read(_LOCAL_HEADER.size)
        )
    return info.header_offset + _LOCAL_HEADER.size + local[1] + local[2]
