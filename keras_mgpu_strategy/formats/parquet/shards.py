"""Checks of Parquet outputs of all shards, by metadata if it has statistics."""

import pathlib
import re
from typing import Any

from keras_mgpu_strategy.formats.sharded import Sharded
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.system.extras import import_extra

_PART = re.compile(r"part-(\d+)-of-(\d+)-(\d+)\.parquet")


def check(sharded: Sharded) -> None:
    """Checks that the parts of all shards hold all rows once, and nothing else does."""
    parts = _listed(sharded)
    schema = None
    for shard in sharded.shards:
        row = sharded.rows(shard).start
        for path in parts.get(shard.index, []):
            row, found = _checked_part(sharded, shard, path, row)
            schema = found if schema is None else schema
            if not found.equals(schema):
                raise sharded.damaged(shard, f"has other columns than shard 0: {path}")
        if row != sharded.rows(shard).stop or shard.index not in parts:
            stop = sharded.rows(shard).stop
            raise sharded.damaged(shard, f"lacks rows {row} to {stop}")


def _listed(sharded: Sharded) -> dict[int, list[pathlib.Path]]:
    parts: dict[int, list[pathlib.Path]] = {}
    folder, others = sharded.path, []
    for path in sorted(folder.iterdir()) if folder.is_dir() else []:
        match = _PART.fullmatch(path.name)
        if match and int(match[2]) == sharded.num_shards:
            parts.setdefault(int(match[1]), []).append(path)
        elif not path.name.startswith((".", "_")):
            others.append(path.name)
    if others:
        raise ValueError(
            f"{folder} holds files that no shard of it wrote: "
            f"{', '.join(others[:5])}. Readers would take them for rows. Nothing was "
            "touched. Remove them."
        )
    for paths in parts.values():
        paths.sort(key=lambda path: (len(path.name), path.name))
    return parts


def _checked_part(
    sharded: Sharded, shard: Shard, path: pathlib.Path, start: int
) -> tuple[int, Any]:
    """Returns the row after a part, which must begin at `start`, and its schema."""
    use = "Checking a .parquet output"
    pa = import_extra("pyarrow", "parquet", use)
    pq = import_extra("pyarrow.parquet", "parquet", use)
    try:
        with pq.ParquetFile(path) as file:
            num_rows, schema = file.metadata.num_rows, file.schema_arrow
            first, last = _ends(file) if num_rows else (start, start - 1)
    except (OSError, pa.ArrowException, KeyError) as error:
        raise sharded.damaged(shard, f"cannot be read in {path} ({error})") from error
    if (first, last + 1) != (start, start + num_rows):
        raise sharded.damaged(
            shard,
            f"has rows {first} to {last + 1} in {path}, expected {num_rows} rows from "
            f"{start} on",
        )
    return start + num_rows, schema


def _ends(file: Any) -> tuple[int, int]:
    """The least and the greatest row of a part."""
    column = file.schema_arrow.get_field_index("row")
    groups = [file.metadata.row_group(i) for i in range(file.num_row_groups)]
    statistics = [group.column(column).statistics for group in groups]
    if all(found is not None and found.has_min_max for found in statistics):
        return min(s.min for s in statistics), max(s.max for s in statistics)
    row = file.read(["row"])["row"].to_numpy()
    return int(row.min()), int(row.max())
