"""What reading an array of a zarr folder would open or run, checked before any row.

zarr decodes chunks with any codec an array names; numcodecs has one that unpickles.

Guarantees:

* Only arrays whose codecs turn bytes into numbers or text are read.
* No link in the folder is followed, so that no file outside it is read.
* No chunk is read that would take more than 4 GiB of memory.
"""

import math
import os
import pathlib
from collections.abc import Iterator
from typing import Any

_MOST_CHUNK_BYTES = 2**32
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


def check_array(array: Any) -> None:
    """Checks an array that zarr opened, by the same metadata that zarr uses.

    Args:
        array: A `zarr.Array`, not read from yet.

    Raises:
        ValueError: It has other codecs, or chunks that are too large.
    """
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


def check_links(folder: pathlib.Path) -> None:
    """Checks that a folder holds no links, however deep.

    Raises:
        ValueError: It does.
    """
    waiting = [str(folder)]
    while waiting:
        with os.scandir(waiting.pop()) as entries:
            for entry in entries:
                if entry.is_symlink():
                    raise ValueError(
                        f"{entry.path} is a link, which is not followed. Copy what it "
                        "leads to into the folder, or pass that path."
                    )
                if entry.is_dir():
                    waiting.append(entry.path)


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
