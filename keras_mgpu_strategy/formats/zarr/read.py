"""zarr arrays and groups, opened read-only, their rows read from disk as they are used.

No link is followed, and only codecs from bytes to numbers or text are used: one of
numcodecs unpickles. No chunk over 4 GiB is read, a truncated one is an error; a missing
one reads as the fill value, even if it was lost.
"""

import dataclasses
import json
import math
import pathlib
from collections.abc import Iterator
from typing import Any

from keras_mgpu_strategy.formats.choosing import Names
from keras_mgpu_strategy.formats.file_source import (
    FileSource,
    naming,
    open_arrays,
    open_named,
)
from keras_mgpu_strategy.formats.paths import FileList, PathLike, as_path, below
from keras_mgpu_strategy.system.extras import import_extra
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest

MARKERS = ("zarr.json", ".zarray", ".zgroup")
_MOST_CHUNK_BYTES = 2**32
_BLOSC_HEADER_BYTES = 16
# Of zarr format 3.
_CODECS = ("blosc", "bytes", "crc32c", "endian", "gzip", "sharding_indexed")
_CODECS += ("transpose", "vlen-bytes", "vlen-utf8", "zstd")
# Of numcodecs, which format 2 names by `id`.
_NUMCODECS = ("adler32", "astype", "bitround", "blosc", "bz2", "crc32", "crc32c")
_NUMCODECS += ("delta", "fixedscaleoffset", "fletcher32", "gzip", "jenkins_lookup3")
_NUMCODECS += ("lz4", "lzma", "packbits", "pcodec", "quantize", "shuffle", "vlen-array")
_NUMCODECS += ("vlen-bytes", "vlen-utf8", "zfpy", "zlib", "zstd")
_KNOWN = {*_CODECS, *_NUMCODECS, *(f"numcodecs.{name}" for name in _NUMCODECS)}
_PARTS = ("codecs", "index_codecs", "filters", "compressor")


@short_traceback
@dataclasses.dataclass(frozen=True)
class Zarr:
    """Rows of a zarr array, or of the arrays in a zarr group.

    Args:
        path: The folder.
        arrays: Names of the arrays of a group to read, such as "images" or
            "train/images": one, one per model input in the order of the model, or a
            dict by input. None takes those named like the model's inputs, or the only
            one.
    """

    path: PathLike
    arrays: Names = None

    def open_rows(self, input_spec: Nest) -> FileSource:
        """Opens the folder, see `FileInput`. Rows keep their shape.

        Raises:
            FileNotFoundError: There is no such folder.
            ValueError: It is damaged, not a zarr folder, or does not fit the model.
            ImportError: zarr is missing.
        """
        zarr = import_extra("zarr", "zarr", "Reading zarr folders")
        path = as_path(self.path)
        if not path.exists():
            raise FileNotFoundError(f"There is no folder {path}.")
        if not any((path / marker).is_file() for marker in MARKERS):
            raise ValueError(
                f"{path} is not a zarr folder: it has none of {', '.join(MARKERS)}."
            )
        with naming(path, "be opened as a zarr array or group"):
            files = _files(path)
            root = zarr.open(str(path), mode="r")
            if not isinstance(root, zarr.Array):

                def find(name: str) -> Any:
                    return _checked(root[name], path / name)

                held, given = list(_walk(path)), self.arrays
                return open_named(files, "arrays", held, given, input_spec, find)
            if self.arrays is not None:
                raise ValueError(
                    f"{path} is one zarr array, received arrays={self.arrays!r}. "
                    "Expected None; names choose among the arrays of a group."
                )
            return open_arrays(files, _checked(root, path), input_spec, [""])


def _files(folder: pathlib.Path) -> FileList:
    """All files below a folder, those with hidden names too; an error for a link."""
    found = sorted(folder.rglob("*"))
    link = next((path for path in found if path.is_symlink()), None)
    if link is not None:
        raise ValueError(
            f"{link} is a link, which is not followed. Copy what it leads to into the "
            "folder, or pass that path."
        )
    return below(folder, (path for path in found if path.is_file()))


def _walk(folder: pathlib.Path, above: str = "") -> Iterator[str]:
    """Yields the names of all arrays in a group, however deep."""
    for child in sorted(folder.iterdir()):
        kind = None
        if (child / ".zarray").is_file():
            kind = "array"
        elif (child / ".zgroup").is_file():
            kind = "group"
        elif (child / "zarr.json").is_file():
            kind = _json(child / "zarr.json").get("node_type")
        if kind == "array":
            yield f"{above}{child.name}"
        elif kind == "group":
            yield from _walk(child, f"{above}{child.name}/")


def _json(path: pathlib.Path) -> Any:
    return json.loads(path.read_bytes())


def _checked(array: Any, folder: pathlib.Path) -> Any:
    """Returns an array after checks of its codecs and chunks that read no chunk."""
    others = sorted(set(_codecs(array.metadata.to_dict())) - _KNOWN)
    if others:
        known = ", ".join(sorted({*_CODECS, *_NUMCODECS}))
        raise ValueError(
            f"it is encoded by {', '.join(others)}, expected some of {known}: others "
            "may run code. If you trust the file, open it with zarr and pass the array."
        )
    num_bytes = math.prod(array.chunks) * array.dtype.itemsize
    if num_bytes > _MOST_CHUNK_BYTES:
        raise ValueError(
            f"it has chunks of shape {array.chunks}, {num_bytes} bytes each, which "
            f"are read as a whole; expected at most {_MOST_CHUNK_BYTES}. Write it "
            "with smaller chunks."
        )
    if _is_blosc(folder):
        _check_lengths(folder)
    return array


def _codecs(metadata: dict[str, Any]) -> Iterator[str]:
    """Yields the name of every codec, also of nested ones."""
    waiting = [metadata.get(part) for part in _PARTS]
    while waiting:
        value = waiting.pop()
        if isinstance(value, (list, tuple)):
            waiting.extend(value)
        elif value is not None:
            codec = value.to_dict() if hasattr(value, "to_dict") else dict(value)
            yield str(codec.get("id", codec.get("name")))
            inner = codec.get("configuration") or {}
            waiting.extend(inner.get(part) for part in _PARTS)


def _is_blosc(array: pathlib.Path) -> bool:
    if (array / ".zarray").is_file():
        return (_json(array / ".zarray").get("compressor") or {}).get("id") == "blosc"
    codecs = _json(array / "zarr.json").get("codecs")
    return bool(codecs) and codecs[-1].get("name") == "blosc"


def _check_lengths(array: pathlib.Path) -> None:
    """Blosc may read past a truncated chunk without noticing (numcodecs 0.16)."""
    for chunk in array.rglob("*"):
        is_metadata = chunk.name.startswith(".") or chunk.name == "zarr.json"
        if is_metadata or not chunk.is_file():
            continue
        with open(chunk, "rb") as file:
            header = file.read(_BLOSC_HEADER_BYTES)
        expected = int.from_bytes(header[12:16], "little")
        size = chunk.stat().st_size
        if size < _BLOSC_HEADER_BYTES or size != expected:
            raise ValueError(
                f"the chunk {chunk} is damaged: {size} bytes, expected {expected}."
            )
