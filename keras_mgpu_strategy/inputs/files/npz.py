"""`.npz` files: arrays by name.

Guarantees:

* Members of an uncompressed file (`numpy.savez`) are mapped into memory in place,
  and their rows read from disk as they are used.
* Compressed members (`numpy.savez_compressed`) cannot be sliced. Those that the model
  takes are read whole when the file is opened, the others not at all.
* Nothing is ever unpickled.
"""

import dataclasses
import pathlib
import struct
import zipfile
from typing import Any

import numpy as np

from keras_mgpu_strategy.inputs.files.choosing import Names, choose, in_structure
from keras_mgpu_strategy.inputs.files.mapped import MappedArray
from keras_mgpu_strategy.inputs.files.opened import FileSource, naming, open_arrays
from keras_mgpu_strategy.inputs.files.paths import PathLike, one_file
from keras_mgpu_strategy.types import Nest

_LOCAL_HEADER = struct.Struct("<4s22xHH")
_HEADERS = {
    (1, 0): np.lib.format.read_array_header_1_0,
    (2, 0): np.lib.format.read_array_header_2_0,
}


@dataclasses.dataclass(frozen=True)
class Npz:
    """Rows of the arrays in a `.npz` file.

    Args:
        path: A file that `numpy.savez` or `numpy.savez_compressed` wrote; the latter
            must fit into memory.
        arrays: Names of the arrays to read: one, one per model input in the order of
            the model, or a dict by input. None takes those that are called as the
            model's inputs are, or the only one.
    """

    path: PathLike
    arrays: Names = None

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the file, see `FileInput`. Rows keep the shape that they have.

        Raises:
            FileNotFoundError: There is no such file.
            ValueError: The file is damaged, holds objects, or not what the model takes.
        """
        files = one_file(self.path, ".npz")
        path = files.files[0]
        with naming(path, "be read as a .npz file"), zipfile.ZipFile(path) as archive:
            members = _members(archive)
            what = f"{path}, names of arrays"
            names = choose(list(members), self.arrays, input_spec, what)
            arrays = [_open(archive, path, members[name]) for name in names]
        nest = in_structure(input_spec, arrays)
        return open_arrays(nest, lambda n: files.identity(n, names), path)


def _members(archive: zipfile.ZipFile) -> dict[str, zipfile.ZipInfo]:
    infos = archive.infolist()
    return {info.filename.removesuffix(".npy"): info for info in infos}


def _open(
    archive: zipfile.ZipFile, path: pathlib.Path, info: zipfile.ZipInfo
) -> MappedArray | np.ndarray:
    with naming(f"{path}, {info.filename},", "be read as an array"):
        mapped = None
        if info.compress_type == zipfile.ZIP_STORED:
            mapped = _map(archive, path, info)
        if mapped is not None:
            return mapped
        with archive.open(info) as file:
            # Reading to the end makes zipfile compare the checksum.
            array = np.lib.format.read_array(file, allow_pickle=False)
            file.read()
            return array


def _map(
    archive: zipfile.ZipFile, path: pathlib.Path, info: zipfile.ZipInfo
) -> MappedArray | None:
    """Maps an uncompressed member; None for what only reading it whole can tell."""
    with archive.open(info) as file:
        header = _HEADERS.get(np.lib.format.read_magic(file))
        if header is None:
            return None
        shape, is_fortran, dtype = header(file)
        offset = file.tell()
    size = dtype.itemsize * int(np.prod(shape, dtype=object))
    if dtype.hasobject or size == 0:
        return None
    if offset + size > info.file_size:
        raise ValueError(
            f"it is cut short: {info.file_size} bytes, expected {offset + size}."
        )
    offset += _data_offset(path, info)
    order = "F" if is_fortran else "C"
    return MappedArray(
        np.memmap(path, dtype, mode="r", offset=offset, shape=shape, order=order)
    )


def _data_offset(path: pathlib.Path, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin; the local header says how long it is itself."""
    with open(path, "rb") as file:
        file.seek(info.header_offset)
        local: tuple[Any, int, int] = _LOCAL_HEADER.unpack(
            file.read(_LOCAL_HEADER.size)
        )
    return info.header_offset + _LOCAL_HEADER.size + local[1] + local[2]
