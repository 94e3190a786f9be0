"""Finished shards of an output, and the whole that they become."""

import numpy as np
import pytest

from keras_mgpu_strategy.formats.registry import output_suffixes, writer_of
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.journal import Progress
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.types import HostBatch, RowMarks

NUM_ROWS, NUM_SHARDS = 10, 3
ONE = np.arange(NUM_ROWS * 2, dtype=np.float32).reshape(NUM_ROWS, 2) / 3
TWO = {"first": ONE, "second": np.arange(NUM_ROWS)}
TEXTS = {"label": np.array([b"x" * (9 * row) for row in range(NUM_ROWS)], object)}
TEXTS["words"] = np.array([[b"a", b"b,\nc"]] * NUM_ROWS, object)
SUFFIXES = output_suffixes()


def write(path, outputs, rows, place=None, shard=None, names=None):
    """Writes some rows as a finished run does."""
    columns = columns_of(outputs)
    multiple = 1 if shard is None else shard.row_multiple(NUM_ROWS)
    layout = Layout(
        columns,
        rows.start,
        rows.stop,
        NUM_ROWS,
        names is not None,
        shard,
        multiple,
    )
    sink = writer_of(path).create(place or path, layout)
    some = slice(rows.start, rows.stop)
    is_dict = isinstance(outputs, dict)
    part = {k: v[some] for k, v in outputs.items()} if is_dict else outputs[some]
    marks = RowMarks(names and names[some])
    sink.write(HostBatch(rows.start, part, marks))
    sink.finish()
    described = [[c.name, list(c.row_shape), c.dtype.name] for c in columns]
    return [*described, *([["file", [], "name"]] if names else [])]


def write_shard(path, outputs, index, count=NUM_SHARDS, **run):
    """Writes one shard and its journal."""
    shard = Shard(index, count)
    rows = shard.rows(NUM_ROWS)
    in_place = path.suffix in (".parquet", ".zarr")
    place = path if in_place else shard.file_of(path)
    layout = write(path, outputs, rows, place, shard, run.pop("names", None))
    about = {"model": "m", "rows of the input": NUM_ROWS, "shard": [index, count]}
    journal = journals.create(
        Target(path, shard).journal, {"run": {**about, **run}, "layout": layout}
    )
    journal.add(Progress(rows.stop, rows.start, 1, {}, finished=True))
    journal.close()


def write_shards(path, outputs, **options):
    for index in range(NUM_SHARDS):
        write_shard(path, outputs, index, **options)


def tree(folder):
    """The content of each file, by its path."""
    files = [path for path in sorted(folder.rglob("*")) if path.is_file()]
    return {str(path.relative_to(folder)): path.read_bytes() for path in files}


def assert_refused(path, error, message):
    """Checks that a merge ends with an error before it touches anything."""
    before = tree(path.parent)
    with pytest.raises(error, match=message):
        merge(path)
    assert tree(path.parent) == before


def place_in(folder, suffix):
    folder.mkdir()
    return folder / f"a [b]{suffix}"
