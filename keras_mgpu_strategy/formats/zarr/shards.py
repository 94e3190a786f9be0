"""Checks of zarr outputs that all shards wrote themselves, by metadata alone."""

import json
import pathlib

from keras_mgpu_strategy.formats.sharded import Sharded
from keras_mgpu_strategy.outputs.strict_json import is_count


def check(sharded: Sharded) -> None:
    """Checks that the store has all rows and all their chunks; else a `ValueError`."""
    names = ("file",) if sharded.has_names else ()
    for name in (*sharded.outputs, *names):
        folder = sharded.path / name
        shape, chunk_rows = _array(folder)
        if shape[0] != sharded.num_rows:
            raise ValueError(
                f"{folder} has {shape[0]} rows, but its shards were run for "
                f"{sharded.num_rows}. Nothing was touched. Run all shards again with "
                "--overwrite."
            )
        found = {path.name for path in folder.iterdir()}
        tail = ".0" * (len(shape) - 1)
        for start in range(0, sharded.num_rows, chunk_rows):
            if f"c.{start // chunk_rows}{tail}" not in found:
                shard = next(s for s in sharded.shards if start in sharded.rows(s))
                raise sharded.damaged(shard, f"lacks rows from {start} on in {folder}")


def _array(folder: pathlib.Path) -> tuple[list[int], int]:
    """Shape of a zarr array, and rows of a chunk."""
    try:
        found = json.loads((folder / "zarr.json").read_bytes())
        chunk = found["chunk_grid"]["configuration"]["chunk_shape"]
        shape = list(found["shape"])
        if not (all(map(is_count, [*shape, chunk[0]])) and shape and chunk[0]):
            raise ValueError(f"shape {shape!r:.80} in chunks of {chunk!r:.80}")
        return shape, chunk[0]
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise ValueError(
            f"{folder} cannot be read as a zarr array ({error}). Nothing was touched. "
            "Run all shards again with --overwrite."
        ) from error
