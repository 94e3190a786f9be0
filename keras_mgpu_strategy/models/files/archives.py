"""The zip archive of a `.keras` file, checked before anything in it is used.

Guarantees:

* A member whose name leads out of the folder it is unpacked to, a link, an encrypted
  member and a name that occurs twice are refused.
* What is unpacked, here or by Keras, is at most 256 MiB or 100 times the archive.
"""

import collections
import contextlib
import io
import pathlib
import re
import stat
import struct
import zipfile
from collections.abc import Iterator
from typing import Any, BinaryIO

from keras_mgpu_strategy.models.files.damage import damaged, foreign, hostile

CONFIG = "config.json"
_WEIGHTS = "model.weights.h5"
_MOST_UNPACKED = 2**28
_MOST_RATIO = 100
_LOCAL_HEADER = struct.Struct("<4s22xHH")


def check_archive(path: str) -> None:
    """Checks that a `.keras` file is a sound archive.

    Raises:
        ValueError: If it is not an archive, is damaged, or looks malicious.
    """
    if not zipfile.is_zipfile(path):
        with open(path, "rb") as file:
            is_cut = file.read(2) == b"PK"
        raise damaged(path) if is_cut else foreign(path, "a `.keras` file")
    with _naming(path), zipfile.ZipFile(path) as archive:
        members = archive.infolist()
    _check_members(path, members)
    if CONFIG not in {member.filename for member in members}:
        raise foreign(path, "a `.keras` file")
    with _naming(path), zipfile.ZipFile(path) as archive:
        corrupt = archive.testzip()
    if corrupt:
        raise damaged(path)


def read_config(path: str) -> bytes:
    """Returns the configuration of the model."""
    with _naming(path), zipfile.ZipFile(path) as archive:
        return archive.read(CONFIG)


def weights_in(file: BinaryIO, path: str) -> io.IOBase | None:
    """Returns the file of weights in an archive; None if there is none.

    Args:
        file: The archive, to be kept open while the weights are read.
        path: Named in errors.
    """
    with _naming(path), zipfile.ZipFile(file) as archive:
        if _WEIGHTS not in archive.namelist():
            return None
        info = archive.getinfo(_WEIGHTS)
        if info.compress_type != zipfile.ZIP_STORED:
            return io.BytesIO(archive.read(info))
        return _Part(file, _first_byte(file, info), info.file_size)


@contextlib.contextmanager
def _naming(path: str) -> Iterator[None]:
    try:
        yield
    except Exception as error:  # what zipfile raises differs from version to version
        raise damaged(path) from error


def _check_members(path: str, members: list[zipfile.ZipInfo]) -> None:
    counts = collections.Counter(member.filename for member in members)
    name, count = counts.most_common(1)[0] if counts else ("", 0)
    if count > 1:
        raise hostile(path, f"holds {name!r} {count} times")
    for member in members:
        if _leads_out(member.filename):
            raise hostile(path, f"holds {member.filename!r}, which leads out of it")
        if stat.S_ISLNK(member.external_attr >> 16):
            raise hostile(path, f"holds the link {member.filename!r}")
        if member.flag_bits & 1:
            raise hostile(path, f"holds {member.filename!r}, which is encrypted")
    packed = pathlib.Path(path).stat().st_size
    unpacked = sum(member.file_size for member in members)
    if unpacked > max(_MOST_UNPACKED, _MOST_RATIO * packed):
        raise hostile(path, f"has {packed} bytes and would unpack to {unpacked}")


def _leads_out(name: str) -> bool:
    parts = re.split(r"[/\\]", name)
    return ".." in parts or not parts[0] or ":" in parts[0] or "\\" in name


def _first_byte(file: BinaryIO, info: zipfile.ZipInfo) -> int:
    """Where a member's bytes begin; the local header gives its own length."""
    file.seek(info.header_offset)
    _, name, extra = _LOCAL_HEADER.unpack(file.read(_LOCAL_HEADER.size))
    return info.header_offset + _LOCAL_HEADER.size + name + extra


class _Part(io.RawIOBase):
    """Some bytes of a file, as a file; zipfile's own is slow to seek backwards.

    Args:
        file: The whole file.
        first: Where the part begins.
        size: Its length.
    """

    def __init__(self, file: BinaryIO, first: int, size: int):
        super().__init__()
        self._file, self._first, self._size = file, first, size
        self._place = 0

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = io.SEEK_SET) -> int:
        start = (0, self._place, self._size)[whence]
        self._place = max(start + offset, 0)
        return self._place

    def readinto(self, buffer: Any) -> int:
        count = max(min(len(buffer), self._size - self._place), 0)
        self._file.seek(self._first + self._place)
        content = self._file.read(count)
        buffer[: len(content)] = content
        self._place += len(content)
        return len(content)
