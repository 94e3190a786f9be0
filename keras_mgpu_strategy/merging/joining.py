"""Shards in `.npy` and `.csv` files of their own -> one file.

Guarantees:

* The bytes are those that a run without shards writes for the same results.
* No more than a piece of a file is in memory.
"""

import contextlib
import csv
import itertools
import os
import pathlib
import shutil
from collections.abc import Iterator
from typing import Any

from keras_mgpu_strategy.formats.npy import index as npy_index
from keras_mgpu_strategy.formats.npy.header import (
    NpyHeader,
    header_of,
    read_blocks,
    read_header,
)
from keras_mgpu_strategy.formats.npy.index import NpyIndex, read_index
from keras_mgpu_strategy.merging.sharded import Sharded
from keras_mgpu_strategy.outputs.durable import new_file, sync_folder, write_whole
from keras_mgpu_strategy.outputs.shards import Shard

_PIECE_BYTES = 2**24


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
            if _kind_of(header) != _kind_of(first):
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
    structures = [x.structure for x in indices if x.structure is not None]
    structure = structures[0] if structures else None
    whole = NpyIndex(sharded.outputs, structure, 0, sharded.num_rows)
    write_whole(target / npy_index.NAME, whole.content())
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
    with _safely(target) as output:
        for shard in sharded.shards:
            with open(sharded.file(shard), "rb") as file:
                if output.tell():
                    file.readline()
                shutil.copyfileobj(file, output, _PIECE_BYTES)


def _kind_of(header: NpyHeader) -> tuple[Any, ...]:
    """What all shards must have in common; their strings may differ in width."""
    dtype = header.dtype
    return header.shape[1:], "S" if dtype.kind == "S" else dtype


def _join_npy(sharded: Sharded, name: str, target: pathlib.Path) -> None:
    paths = [sharded.file(shard) / name for shard in sharded.shards]
    headers = [_header(path) for path in paths]
    dtype = max((header.dtype for header in headers), key=lambda x: x.itemsize)
    with _safely(target) as output:
        output.write(header_of((sharded.num_rows, *headers[0].shape[1:]), dtype))
        for path, header in zip(paths, headers, strict=True):
            with open(path, "rb") as file:
                for block in read_blocks(file, header, header.shape[0]):
                    output.write(block.astype(dtype, copy=False).tobytes())


@contextlib.contextmanager
def _safely(target: pathlib.Path) -> Iterator[Any]:
    """Opens a new file that is on disk after the block."""
    with new_file(target) as output:
        yield output
        output.flush()
        os.fsync(output.fileno())


def _npy_names(sharded: Sharded) -> list[str]:
    """The files of a shard below its own path; "" where that is the only one."""
    if len(sharded.outputs) == 1:
        return [""]
    return [f"{name}.npy" for name in sharded.outputs]


def _checked_npy(sharded: Sharded, shard: Shard, name: str) -> NpyHeader:
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
    size = path.stat().st_size
    if size != header.num_bytes or header.is_fortran:
        raise sharded.damaged(
            shard,
            f"has {size} bytes in {path}, expected {header.num_bytes}, row by row",
        )
    return header


def _header(path: pathlib.Path) -> NpyHeader:
    with open(path, "rb") as file:
        return read_header(file)


def _index(sharded: Sharded, shard: Shard) -> NpyIndex:
    path = sharded.file(shard) / npy_index.NAME
    rows = sharded.rows(shard)
    try:
        index = read_index(path)
    except (OSError, ValueError) as error:
        raise sharded.damaged(shard, f"has no {npy_index.NAME} ({error})") from error
    told = (index.outputs, index.first_row, index.num_rows)
    if told != (sharded.outputs, rows.start, len(rows)):
        raise sharded.damaged(shard, f"has other outputs or rows in {path}")
    return index


def _check_csv_rows(sharded: Sharded, shard: Shard) -> None:
    """Reads the number of each row: quoted text may hold ends of lines."""
    rows = sharded.rows(shard)
    row = rows.start
    with open(sharded.file(shard), encoding="utf-8", newline="") as file:
        try:
            for record in itertools.islice(csv.reader(file), 1, None):
                if not record or record[0] != str(row):
                    raise _no_row(sharded, shard, f"{record[:1]!r:.80}", row)
                row += 1
        except (csv.Error, UnicodeDecodeError) as error:
            raise _no_row(sharded, shard, f"{error}", row) from error
    if row != rows.stop:
        raise sharded.damaged(
            shard, f"has rows up to {row}, expected {rows.stop}, in {file.name}"
        )


def _no_row(sharded: Sharded, shard: Shard, found: str, row: int) -> ValueError:
    path = sharded.file(shard)
    return sharded.damaged(shard, f"has {found} in place of row {row} in {path}")
