"""Shards in `.npy` files -> one with the bytes of an unsharded run, piece by piece."""

import pathlib
from typing import Any

from keras_mgpu_strategy.formats.npy import header as npy_header
from keras_mgpu_strategy.formats.npy import index as npy_index
from keras_mgpu_strategy.formats.npy.index import NpyIndex, read_index
from keras_mgpu_strategy.formats.sharded import Sharded
from keras_mgpu_strategy.outputs.durable import sync_folder, synced_file, write_whole
from keras_mgpu_strategy.outputs.shards import Shard


def check(sharded: Sharded) -> None:
    """Raises a `ValueError` unless the `.npy` files of all shards hold their rows."""
    for name in _names(sharded):
        first = None
        for shard in sharded.shards:
            kind = _kind_of(_checked_header(sharded, shard, name))
            first = first or kind
            if kind != first:
                raise sharded.damaged(shard, f"holds other values than shard 0: {name}")
    if len(sharded.outputs) > 1:
        for shard in sharded.shards:
            _index(sharded, shard)


def join(sharded: Sharded, target: pathlib.Path) -> None:
    """Writes the rows of all shards to `target`, a file or folder that is not there."""
    names = _names(sharded)
    if names == [""]:
        _join_file(sharded, "", target)
        return
    target.mkdir()
    for name in names:
        _join_file(sharded, name, target / name)
    structures = (_index(sharded, shard).structure for shard in sharded.shards)
    structure = next((found for found in structures if found is not None), None)
    whole = NpyIndex(sharded.outputs, structure, 0, sharded.num_rows)
    write_whole(target / npy_index.NAME, whole.content())
    sync_folder(target)


def _kind_of(header: npy_header.NpyHeader) -> tuple[Any, ...]:
    """What all shards must have in common; their strings may differ in width."""
    dtype = header.dtype
    return header.shape[1:], "S" if dtype.kind == "S" else dtype


def _join_file(sharded: Sharded, name: str, target: pathlib.Path) -> None:
    paths = [sharded.file(shard) / name for shard in sharded.shards]
    headers = list(map(npy_header.header_in, paths))
    dtype = max((header.dtype for header in headers), key=lambda x: x.itemsize)
    with synced_file(target) as output:
        shape = (sharded.num_rows, *headers[0].shape[1:])
        output.write(npy_header.header_of(shape, dtype))
        for path, header in zip(paths, headers, strict=True):
            for block in npy_header.read_blocks(path, header.shape[0]):
                output.write(block.astype(dtype, copy=False).tobytes())


def _names(sharded: Sharded) -> list[str]:
    """The files of a shard below its own path; "" if that is the only one."""
    if len(sharded.outputs) == 1:
        return [""]
    return [f"{name}.npy" for name in sharded.outputs]


def _checked_header(sharded: Sharded, shard: Shard, name: str) -> npy_header.NpyHeader:
    path, num_rows = sharded.file(shard) / name, len(sharded.rows(shard))
    if not path.is_file():
        raise sharded.damaged(shard, f"lacks the file {path}")
    try:
        header = npy_header.header_in(path)
    except ValueError as error:
        raise sharded.damaged(shard, f"cannot be read ({error})") from error
    size, what = path.stat().st_size, None
    if header.shape[:1] != (num_rows,):
        what = f"has shape {header.shape} in {path}, expected {num_rows} rows"
    elif size != header.num_bytes or header.is_fortran:
        what = f"has {size} bytes in {path}, expected {header.num_bytes}, row by row"
    if what is not None:
        raise sharded.damaged(shard, what)
    return header


def _index(sharded: Sharded, shard: Shard) -> NpyIndex:
    path = sharded.file(shard) / npy_index.NAME
    rows = sharded.rows(shard)
    try:
        index = read_index(path)
    except (OSError, ValueError) as error:
        raise sharded.damaged(shard, f"has no {npy_index.NAME} ({error})") from error
    found = (index.outputs, index.first_row, index.num_rows)
    if found != (sharded.outputs, rows.start, len(rows)):
        raise sharded.damaged(shard, f"has other outputs or rows in {path}")
    return index
