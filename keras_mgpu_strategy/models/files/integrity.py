"""The content of model files, checked before any version of Keras reads them.

Refused are archives with links, encrypted members, repeated names, names outside of the
folder, or that unpack to over 256 MiB and 100 times their size; and HDF5 files that
refer to other files or hold an array far larger than what it stores.
"""

import collections
import contextlib
import io
import json
import math
import os
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

import h5py

EXPECTED = "a `.keras` file, a legacy `.h5` or `.hdf5` file, or a SavedModel folder"

_CONFIG, _WEIGHTS = "config.json", "model.weights.h5"
_H5_CONFIGS = ("model_config", "training_config")
_MOST_UNPACKED, _MOST_UNPACKED_RATIO = 2**28, 100
# The limits of Keras since 3.13.
_FREE_BYTES, _MOST_RATIO = 2**32, 1000
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def check_archive(path: str) -> None:
    """Raises ValueError if a `.keras` file is not a sound archive, or is hostile."""
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            is_cut = file.read(2) == b"PK"
        raise _damaged(path) if is_cut else _foreign(path, "a `.keras` file")
    with _naming(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    problem = _problem_of_members(members, os.path.getsize(path))
    if problem:
        raise _hostile(path, problem)
    by_name = {member.filename: member for member in members}
    if _CONFIG not in by_name:
        raise _foreign(path, "a `.keras` file")
    with open(path, "rb") as file:
        with _naming(path), zipfile.ZipFile(file) as archive:
            corrupt = archive.testzip()
            info = by_name.get(_WEIGHTS)
            weights = _opened(archive, info, file) if info and not corrupt else None
        if corrupt:
            raise _damaged(path)
        if weights is not None:
            _check_tree(weights, path)


def check_h5(path: str) -> None:
    """Raises ValueError if a legacy `.h5` file is not a sound, whole model."""
    if not h5py.is_hdf5(path):
        raise _foreign(path, "an HDF5 file")
    _check_tree(path, path)
    with h5py.File(path, "r") as file:
        if "model_config" in file.attrs:
            return
    raise ValueError(
        f"{path!r} is an HDF5 file without a model configuration, maybe weights "
        "alone. Expected a whole model: write it with `model.save('model.keras')`, "
        "or build the model inside `mgpu.scope()` and call `model.load_weights`."
    )


def read_configs(path: str, kind: str) -> dict[str, Any]:
    """Returns the configuration of a checked file's model and of its training."""
    if kind == "h5":
        with h5py.File(path, "r") as file:
            texts = {name: file.attrs.get(name) for name in _H5_CONFIGS}
        return {k: _parsed(path, text) for k, text in texts.items() if text is not None}
    with _naming(path), zipfile.ZipFile(path) as archive:
        config = _parsed(path, archive.read(_CONFIG))
    if not isinstance(config, dict):
        raise _damaged(path)
    return config


def _parsed(path: str, text: Any) -> Any:
    with _naming(path):
        # Early versions of Keras wrote bytes to `.h5` files.
        return json.loads(text if isinstance(text, bytes) else str(text))


def _damaged(path: str) -> ValueError:
    return ValueError(
        f"{path!r} is truncated or damaged ({os.path.getsize(path)} bytes). Copy or "
        "save the model again."
    )


def _foreign(path: str, expected: str) -> ValueError:
    return ValueError(
        f"{path!r} is not {expected}, in spite of its name. Expected {EXPECTED}, as "
        "written by `model.save('model.keras')`."
    )


def _hostile(path: str, what: str) -> ValueError:
    return ValueError(
        f"{path!r} {what}, which Keras does not write, so it is not loaded. Check "
        "where the file comes from, or save the model again."
    )


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what damage raises differs from version to version
        raise _damaged(path) from error


def _problem_of_members(members: list[zipfile.ZipInfo], packed: int) -> str | None:
    counts = collections.Counter(member.filename for member in members)
    name, count = counts.most_common(1)[0] if counts else ("", 0)
    if count > 1:
        return f"holds {name!r} {count} times"
    for member in members:
        name = member.filename
        parts = re.split(r"[/\\]", name)
        if ".." in parts or not parts[0] or ":" in parts[0] or "\\" in name:
            return f"holds {name!r}, which leads out of it"
        if stat.S_ISLNK(member.external_attr >> 16):
            return f"holds the link {name!r}"
        if member.flag_bits & 1:
            return f"holds {name!r}, which is encrypted"
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_MOST_UNPACKED, _MOST_UNPACKED_RATIO * packed):
        return f"has {packed} bytes and would unpack to {unpacked}"
    return None


def _opened(archive: zipfile.ZipFile, info: zipfile.ZipInfo, file: BinaryIO) -> Any:
    """A member as a file; of one that is not compressed, nothing is copied."""
    if info.compress_type != zipfile.ZIP_STORED:
        return io.BytesIO(archive.read(info))
    # Its bytes begin after a header that gives its own length.
    file.seek(info.header_offset)
    _, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return _Part(file, file.tell() + name + extra, info.file_size)


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file; zipfile's own is slow to seek backwards."""

    def __init__(self, file: Any, first: int, size: int):
        super().__init__()
        self._file, self._first, self._size = file, first, size
        self._position = 0

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._position, self._size)[whence]
        self._position = max(start + offset, 0)
        return self._position

    def readinto(self, buffer: Any) -> int:
        left = max(self._size - self._position, 0)
        self._file.seek(self._first + self._position)
        count = self._file.readinto(memoryview(buffer)[:left])
        self._position += count
        return count


def _check_tree(file: Any, path: str) -> None:
    with _naming(path), h5py.File(file, "r") as opened:
        problem = _problem_in(opened)
    if problem:
        raise _hostile(path, problem)


def _problem_in(file: Any) -> str | None:
    groups, seen = [file["/"]], {_address(file["/"])}
    while groups:
        group = groups.pop()
        for name in group:
            link = group.get(name, getlink=True)
            if isinstance(link, h5py.SoftLink):
                continue  # leads to what another link reaches, or nowhere
            if not isinstance(link, h5py.HardLink):
                return f"links to another file at {name!r}"
            node = group[name]
            if isinstance(node, h5py.Group) and _address(node) not in seen:
                seen.add(_address(node))
                groups.append(node)
            if isinstance(node, h5py.Dataset) and (problem := _problem_of(node)):
                return problem
    return None


def _problem_of(array: Any) -> str | None:
    if array.external or array.is_virtual:
        return f"keeps the values of {array.name!r} in other files"
    claimed = math.prod(array.shape or ()) * array.dtype.itemsize
    stored = array.id.get_storage_size()
    if claimed > max(_FREE_BYTES, _MOST_RATIO * stored):
        return f"holds {stored} bytes for {array.name!r}, which claims {claimed}"
    return None


def _address(group: Any) -> int:
    return h5py.h5o.get_info(group.id).addr  # pyright: ignore[reportAttributeAccessIssue]
