"""Shards in `.npy` and `.csv` files of their own -> one file.

Guarantees:

* The bytes are those that a run without shards writes for the same results.
* No more than a piece of a file is in memory.
"""

import csv
import dataclasses
import io
import json
import math
import os
import pathlib
import shutil
from typing import Any

import numpy as np

from keras_mgpu_strategy.merging.sharded import Sharded
from keras_mgpu_strategy.shards import Shard
from keras_mgpu_strategy.sinks.durable import sync_folder, write_whole

_PIECE_BYTES = 2**24
_INDEX = "index.json"


@dataclasses.dataclass(frozen=True, slots=True)
class _Header:
    """What a `.npy` file says of itself, and where its values begin."""

    shape: tuple[int, ...]
    dtype: np.dtype
    offset: int


def check_npy(sharded: Sharded) -> None:
    """Checks that the `.npy` files of all shards hold their rows.

    Raises:
        ValueError: One is missing, of other rows, or of another length.
    """
    for name in _npy_names(sharded):
        first = None
        for shard in sharded.shards:
            header = _checked_npy(sharded, shard, name)
            first = first or header
            if (header.shape[1:], header.dtype) != (first.shape[1:], first.dtype):
                raise sharded.damaged(shard, f"holds other values than shard 0: {name}")
    if len(sharded.outputs) > 1:
        for shard in sharded.shards:
            _index(sharded, shard)


def join_npy(sharded: Sharded, target: pathlib.Path) -> None:
    """Writes the rows of all shards to `target`, a file or folder that is not there."""
    names = _npy_names(sharded)
    if names == [""]:
        _join_npy(sharded, "", target)
        return
    target.mkdir()
    for name in names:
        _join_npy(sharded, name, target / name)
    indices = [_index(sharded, shard) for shard in sharded.shards]
    structures = [x["structure"] for x in indices if x["structure"] is not None]
    whole = {
        **indices[0],
        "structure": structures[0] if structures else None,
        "first_row": 0,
        "num_rows": sharded.num_rows,
    }
    content = f"{json.dumps(whole, indent=2, sort_keys=True)}\n"
    write_whole(target / _INDEX, content.encode())
    sync_folder(target)


def check_csv(sharded: Sharded) -> None:
    """Checks that the `.csv` files of all shards hold their rows.

    Raises:
        ValueError: One is missing, or has other columns or rows.
    """
    first = None
    for shard in sharded.shards:
        path = sharded.file(shard)
        if not path.is_file():
            raise sharded.damaged(shard, f"lacks the file {path}")
        with open(path, "rb") as file:
            header = file.readline()
        first = first or header
        if header != first:
            raise sharded.damaged(shard, "has other columns than shard 0")
        _check_csv_rows(sharded, shard)


def join_csv(sharded: Sharded, target: pathlib.Path) -> None:
    """Writes the rows of all shards to `target`, a file."""
    parts = []
    for shard in sharded.shards:
        path = sharded.file(shard)
        with open(path, "rb") as file:
            parts.append((path, len(file.readline()) if parts else 0))
    _join(target, b"", parts)


def _join_npy(sharded: Sharded, name: str, target: pathlib.Path) -> None:
    paths = [sharded.file(shard) / name for shard in sharded.shards]
    headers = [_header(path) for path in paths]
    content = io.BytesIO()
    fields = {
        "descr": np.lib.format.dtype_to_descr(headers[0].dtype),
        "fortran_order": False,
        "shape": (sharded.num_rows, *headers[0].shape[1:]),
    }
    np.lib.format.write_array_header_1_0(content, fields)
    offsets = [header.offset for header in headers]
    _join(target, content.getvalue(), list(zip(paths, offsets, strict=True)))


def _join(
    target: pathlib.Path, head: bytes, parts: list[tuple[pathlib.Path, int]]
) -> None:
    """Writes bytes, then those of files from some offset on, safely to disk."""
    with open(target, "wb") as output:
        output.write(head)
        for path, offset in parts:
            with open(path, "rb") as file:
                file.seek(offset)
                shutil.copyfileobj(file, output, _PIECE_BYTES)
        output.flush()
        os.fsync(output.fileno())


def _npy_names(sharded: Sharded) -> list[str]:
    """The files of a shard below its own path; "" where that is the only one."""
    if len(sharded.outputs) == 1:
        return [""]
    return [f"{name}.npy" for name in sharded.outputs]


def _checked_npy(sharded: Sharded, shard: Shard, name: str) -> _Header:
    path = sharded.file(shard) / name
    if not path.is_file():
        raise sharded.damaged(shard, f"lacks the file {path}")
    try:
        header = _header(path)
    except ValueError as error:
        raise sharded.damaged(shard, f"cannot be read ({error})") from error
    num_rows = len(sharded.rows(shard))
    if header.shape[:1] != (num_rows,):
        raise sharded.damaged(
            shard, f"has shape {header.shape} in {path}, expected {num_rows} rows"
        )
    num_bytes = header.offset + math.prod(header.shape) * header.dtype.itemsize
    if path.stat().st_size != num_bytes:
        size = path.stat().st_size
        raise sharded.damaged(
            shard, f"has {size} bytes in {path}, expected {num_bytes}"
        )
    return header


def _header(path: pathlib.Path) -> _Header:
    with open(path, "rb") as file:
        np.lib.format.read_magic(file)
        shape, _, dtype = np.lib.format.read_array_header_1_0(file)
        return _Header(shape, dtype, file.tell())


def _index(sharded: Sharded, shard: Shard) -> dict[str, Any]:
    path = sharded.file(shard) / _INDEX
    try:
        return {"structure": None, **json.loads(path.read_text())}
    except (OSError, ValueError, TypeError) as error:
        raise sharded.damaged(shard, f"has no {_INDEX} ({error})") from error


def _check_csv_rows(sharded: Sharded, shard: Shard) -> None:
    """Reads the number of each row: quoted text may hold ends of lines."""
    rows = sharded.rows(shard)
    with open(sharded.file(shard), encoding="utf-8", newline="") as file:
        records = csv.reader(file)
        next(records)
        row = rows.start
        for record in records:
            if not record or record[0] != str(row):
                raise sharded.damaged(
                    shard, f"has {record[:1]} in place of row {row} in {file.name}"
                )
            row += 1
    if row != rows.stop:
        raise sharded.damaged(
            shard, f"has rows up to {row}, expected {rows.stop}, in {file.name}"
        )
