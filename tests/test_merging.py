"""`merge`: what it joins, and what it refuses."""

import json
import os
import shutil

import numpy as np
import pytest

from keras_mgpu_strategy.merging import Merged, merge
from keras_mgpu_strategy.shards import Shard
from keras_mgpu_strategy.sinks import journal as journals
from keras_mgpu_strategy.sinks.columns import columns_of
from keras_mgpu_strategy.sinks.formats import FORMATS
from keras_mgpu_strategy.sinks.interface import Layout
from keras_mgpu_strategy.sinks.journal import Progress
from keras_mgpu_strategy.sinks.target import Target, shard_file
from keras_mgpu_strategy.types import HostBatch, RowMarks

NUM_ROWS, NUM_SHARDS = 10, 3
ONE = np.arange(NUM_ROWS * 2, dtype=np.float32).reshape(NUM_ROWS, 2) / 3
TWO = {"first": ONE, "second": np.arange(NUM_ROWS)}
SUFFIXES = tuple(FORMATS)


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
        None if shard is None else (shard.index, shard.count),
        multiple,
    )
    sink = FORMATS[path.suffix].create(place or path, layout)
    some = slice(rows.start, rows.stop)
    is_dict = isinstance(outputs, dict)
    part = {k: v[some] for k, v in outputs.items()} if is_dict else outputs[some]
    sink.write(HostBatch(rows.start, part), RowMarks(names and names[some]))
    sink.finish()
    described = [[c.name, list(c.row_shape), c.dtype.name] for c in columns]
    return [*described, *([["file", [], "name"]] if names else [])]


def write_shard(path, outputs, index, count=NUM_SHARDS, **run):
    """Writes one shard, and the journal that says so."""
    shard = Shard(index, count)
    rows = shard.rows(NUM_ROWS)
    in_place = path.suffix in (".parquet", ".zarr")
    place = path if in_place else shard_file(path, shard)
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


@pytest.mark.parametrize("names", [None, [f"file {row}\n" for row in range(NUM_ROWS)]])
@pytest.mark.parametrize("outputs", [ONE, TWO], ids=["one", "two"])
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shards_become_the_whole(suffix, outputs, names, tmp_path):
    whole = place_in(tmp_path / "whole", suffix)
    parts = place_in(tmp_path / "parts", suffix)
    write(whole, outputs, range(NUM_ROWS), names=names)
    write_shards(parts, outputs, names=names)
    assert merge(parts) == Merged(NUM_SHARDS, NUM_ROWS)
    assert os.listdir(parts.parent) == [parts.name]
    if suffix in (".npy", ".csv"):
        assert tree(parts.parent) == tree(whole.parent)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_shards_are_listed(suffix, tmp_path):
    path = tmp_path / f"scores{suffix}"
    write_shard(path, ONE, 1)
    unfinished = Target(path, Shard(2, NUM_SHARDS)).journal
    journals.create(unfinished, {"run": {}, "layout": []})
    assert_refused(
        path,
        FileNotFoundError,
        "lacks shards of 3: 0 is not there, and "
        r"2 is not finished.*Run and so on.*--shard=0/3 --resume",
    )


def test_what_is_not_sharded(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journals of shards.*was not run"):
        merge(tmp_path / "scores.npy")
    np.save(tmp_path / "scores.npy", ONE)
    with pytest.raises(FileNotFoundError, match="It is complete, or was not run with"):
        merge(tmp_path / "scores.npy")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        merge(tmp_path / "no" / "scores.npy")
    with pytest.raises(ValueError, match="ends in one of .npy, .csv, .parquet, .zarr"):
        merge(tmp_path / "scores.txt")


def test_other_runs_are_refused(tmp_path):
    path = tmp_path / "scores.npy"
    write_shards(path, ONE)
    write_shard(path, ONE, 1, model="n")
    with pytest.raises(ValueError, match="model: 'm' in shard 0, 'n' in shard 1"):
        merge(path)
    write_shard(path, ONE.astype(np.float64), 1)
    with pytest.raises(ValueError, match="outputs: .* in shard 0, .* in shard 1"):
        merge(path)
    write_shard(path, ONE, 1)
    write_shard(path, ONE, 0, count=2)
    with pytest.raises(ValueError, match=r"runs with \[2, 3\] shards"):
        merge(path)


def test_an_output_that_is_there_is_kept(tmp_path):
    path = tmp_path / "scores.csv"
    write_shards(path, ONE)
    path.write_text("precious")
    assert_refused(path, FileExistsError, "exists, beside shards")


def damage_npy(path):
    file = shard_file(path, Shard(1, NUM_SHARDS))
    np.save(file, np.load(file)[:-1])


def cut_npy(path):
    file = shard_file(path, Shard(1, NUM_SHARDS))
    file.write_bytes(file.read_bytes()[:-4])


def cut_csv(path):
    file = shard_file(path, Shard(1, NUM_SHARDS))
    file.write_bytes(b"".join(file.read_bytes().splitlines(True)[:-1]))


def repeat_csv(path):
    file = shard_file(path, Shard(1, NUM_SHARDS))
    lines = file.read_bytes().splitlines(True)
    file.write_bytes(b"".join([*lines[:-1], lines[1]]))


def drop_part(path):
    (path / "part-00001-of-00003-00000.parquet").unlink()


def swap_part(path):
    other = path / "part-00000-of-00003-00000.parquet"
    shutil.copy(other, path / "part-00001-of-00003-00000.parquet")


def add_part(path):
    other = path / "part-00000-of-00003-00000.parquet"
    shutil.copy(other, path / "part-00000.parquet")


def drop_chunk(path):
    (path / "output" / "c.4.0").unlink()


def shorten_array(path):
    metadata = path / "output" / "zarr.json"
    described = json.loads(metadata.read_text())
    described["shape"][0] = 9
    metadata.write_text(json.dumps(described))


@pytest.mark.parametrize(
    ("suffix", "damage", "message"),
    [
        (".npy", damage_npy, r"Shard 1 of .* has shape \(2, 2\) in .*expected 3 rows"),
        (".npy", cut_npy, "Shard 1 of .* has 148 bytes in .*, expected 152"),
        (".csv", cut_csv, "Shard 1 of .* has rows up to 5, expected 6"),
        (".csv", repeat_csv, r"Shard 1 of .* has \['3'\] in place of row 5"),
        (".parquet", drop_part, "Shard 1 of .* lacks rows 3 to 6.*--shard=1/3 --over"),
        (".parquet", swap_part, "Shard 1 of .* has rows 0 to 3 in .*from 3 on"),
        (".parquet", add_part, "holds what no shard of it wrote: part-00000.parquet"),
        (".zarr", drop_chunk, "Shard 1 of .* lacks rows from 4 on"),
        (".zarr", shorten_array, "has 9 rows, but its shards were run for 10"),
    ],
)
def test_files_that_do_not_hold_their_rows(suffix, damage, message, tmp_path):
    path = tmp_path / f"scores{suffix}"
    write_shards(path, ONE)
    damage(path)
    assert_refused(path, ValueError, message)
