"""Shards in `.csv` files -> one with the bytes of an unsharded run, piece by piece."""

import csv
import itertools
import pathlib
import shutil

from keras_mgpu_strategy.formats.sharded import Sharded
from keras_mgpu_strategy.outputs.durable import synced_file
from keras_mgpu_strategy.outputs.shards import Shard

_PIECE_BYTES = 2**24


def check(sharded: Sharded) -> None:
    """Raises a `ValueError` unless the `.csv` files of all shards hold their rows."""
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
        _check_rows(sharded, shard, path)


def join(sharded: Sharded, target: pathlib.Path) -> None:
    """Writes the rows of all shards to `target`, a file."""
    with synced_file(target) as output:
        for shard in sharded.shards:
            with open(sharded.file(shard), "rb") as file:
                if output.tell():
                    file.readline()
                shutil.copyfileobj(file, output, _PIECE_BYTES)


def _check_rows(sharded: Sharded, shard: Shard, path: pathlib.Path) -> None:
    """Reads the number of each row: quoted text may hold ends of lines."""
    row, stop, found = sharded.rows(shard).start, sharded.rows(shard).stop, None
    with open(path, encoding="utf-8", newline="") as file:
        try:
            for record in itertools.islice(csv.reader(file), 1, None):
                if not record or record[0] != str(row):
                    found = f"{record[:1]!r:.80}"
                    break
                row += 1
        except (csv.Error, UnicodeDecodeError) as error:
            found = str(error)
    if found is not None:
        raise sharded.damaged(shard, f"has {found} in place of row {row} in {path}")
    if row != stop:
        raise sharded.damaged(
            shard, f"has rows up to {row}, expected {stop}, in {path}"
        )
