"""Chunks of zarr arrays that Blosc compressed.

Guarantee: a truncated chunk is found. Blosc itself notices only sometimes, and
otherwise returns whatever is in memory after it (numcodecs 0.16).
"""

import json
import pathlib
from collections.abc import Iterator

_HEADER_BYTES = 16


def check_chunks(array: pathlib.Path) -> None:
    """Compares the sizes of chunks with what Blosc says they are.

    Args:
        array: The folder of a zarr array.

    Raises:
        ValueError: A chunk is shorter or longer.
    """
    if not _is_blosc(array):
        return
    for chunk in _chunks(array):
        with open(chunk, "rb") as file:
            header = file.read(_HEADER_BYTES)
        expected = int.from_bytes(header[12:16], "little")
        size = chunk.stat().st_size
        if size < _HEADER_BYTES or size != expected:
            raise ValueError(
                f"the chunk {chunk} is damaged: {size} bytes, expected {expected}."
            )


def _is_blosc(array: pathlib.Path) -> bool:
    if (array / ".zarray").is_file():
        compressor = json.loads((array / ".zarray").read_bytes()).get("compressor")
        return bool(compressor) and compressor.get("id") == "blosc"
    codecs = json.loads((array / "zarr.json").read_bytes()).get("codecs")
    return bool(codecs) and codecs[-1].get("name") == "blosc"


def _chunks(array: pathlib.Path) -> Iterator[pathlib.Path]:
    for path in array.rglob("*"):
        is_metadata = path.name.startswith(".") or path.name == "zarr.json"
        if not is_metadata and path.is_file():
            yield path
