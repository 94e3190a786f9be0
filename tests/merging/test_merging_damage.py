"""Shards that were damaged, or swapped for others, after they were written."""

import json
import shutil
import sys

import numpy as np
import pytest
from pyarrow import parquet

from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.journal import Progress
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import Target
from tests.merging.sharded_outputs import (
    NUM_SHARDS,
    ONE,
    TWO,
    assert_refused,
    write_shards,
)

MIDDLE = Shard(1, NUM_SHARDS)
PART = "part-00001-of-00003-00000.parquet"
FIRST_PART = "part-00000-of-00003-00000.parquet"


def of_middle(path):
    return MIDDLE.file_of(path)


def remove_file(path):
    of_middle(path).unlink()


def garble_file(path):
    of_middle(path).write_bytes(b"no such format")


def widen_npy(path):
    np.save(of_middle(path), ONE[3:6].astype(np.float64))


def turn_npy(path):
    np.save(of_middle(path), np.asfortranarray(ONE[3:6]))


def shorten_npy(path):
    np.save(of_middle(path), np.load(of_middle(path))[:-1])


def cut_npy(path):
    of_middle(path).write_bytes(of_middle(path).read_bytes()[:-4])


def remove_index(path):
    (of_middle(path) / "index.json").unlink()


def rename_column(path):
    content = of_middle(path).read_text()
    of_middle(path).write_text(content.replace("row", "line", 1))


def garble_row(path):
    content = of_middle(path).read_bytes()
    of_middle(path).write_bytes(content.replace(b"\n4,", b"\n\xff,"))


def cut_csv(path):
    lines = of_middle(path).read_bytes().splitlines(True)
    of_middle(path).write_bytes(b"".join(lines[:-1]))


def repeat_csv(path):
    lines = of_middle(path).read_bytes().splitlines(True)
    of_middle(path).write_bytes(b"".join([*lines[:-1], lines[1]]))


def garble_part(path):
    (path / PART).write_bytes(b"no such format")


def drop_column(path):
    table = parquet.read_table(path / PART)
    parquet.write_table(table.drop_columns(table.column_names[-1]), path / PART)


def drop_part(path):
    (path / PART).unlink()


def swap_part(path):
    shutil.copy(path / FIRST_PART, path / PART)


def add_part(path):
    shutil.copy(path / FIRST_PART, path / "part-00000.parquet")


def garble_array(path):
    (path / "output" / "zarr.json").write_text("{}")


def change_array(path, change):
    metadata = path / "output" / "zarr.json"
    described = json.loads(metadata.read_text())
    change(described)
    metadata.write_text(json.dumps(described))


def no_chunk_rows(path):
    def change(described):
        described["chunk_grid"]["configuration"]["chunk_shape"][0] = 0

    change_array(path, change)


def shorten_array(path):
    def change(described):
        described["shape"][0] = 9

    change_array(path, change)


def drop_chunk(path):
    (path / "output" / "c.4.0").unlink()


def end_early(path):
    written = journals.read(Target(path, MIDDLE).journal)
    shorter = journals.create(written.path, written.about)
    shorter.add(Progress(5, 5, 1, {}, finished=True))
    shorter.close()


@pytest.mark.parametrize(
    ("suffix", "outputs", "damage", "message"),
    [
        (".npy", ONE, remove_file, "Shard 1 of .* lacks the file .*--shard=1/3 --over"),
        (".npy", ONE, garble_file, "Shard 1 of .* cannot be read"),
        (".npy", ONE, widen_npy, "Shard 1 of .* holds other values than shard 0"),
        (".npy", ONE, turn_npy, "Shard 1 of .* has 152 bytes in .*, row by row"),
        (
            ".npy",
            ONE,
            shorten_npy,
            r"Shard 1 of .* has shape \(2, 2\) in .*expected 3 rows",
        ),
        (".npy", ONE, cut_npy, "Shard 1 of .* has 148 bytes in .*, expected 152"),
        (".npy", TWO, remove_index, "Shard 1 of .* has no index.json"),
        (".npy", ONE, end_early, "Shard 1 of .* ends at row 5, expected row 6"),
        (".csv", ONE, remove_file, "Shard 1 of .* lacks the file"),
        (".csv", ONE, rename_column, "Shard 1 of .* has other columns than shard 0"),
        (".csv", ONE, garble_row, "Shard 1 of .* has .* in place of row 3 in"),
        (".csv", ONE, cut_csv, "Shard 1 of .* has rows up to 5, expected 6"),
        (".csv", ONE, repeat_csv, r"Shard 1 of .* has \['3'\] in place of row 5"),
        (
            ".parquet",
            ONE,
            drop_part,
            "Shard 1 of .* lacks rows 3 to 6.*--shard=1/3 --over",
        ),
        (".parquet", ONE, swap_part, "Shard 1 of .* has rows 0 to 3 in .*from 3 on"),
        (
            ".parquet",
            ONE,
            add_part,
            "holds files that no shard of it wrote: part-00000.parquet",
        ),
        (".parquet", ONE, garble_part, f"Shard 1 of .* cannot be read in .*{PART}"),
        (".parquet", ONE, drop_column, "Shard 1 of .* has other columns than shard 0"),
        (".zarr", ONE, drop_chunk, "Shard 1 of .* lacks rows from 4 on"),
        (".zarr", ONE, shorten_array, "has 9 rows, but its shards were run for 10"),
        (".zarr", ONE, garble_array, "output cannot be read as a zarr array"),
        (
            ".zarr",
            ONE,
            no_chunk_rows,
            r"read as a zarr array .shape \[10, 2\] in chunks",
        ),
    ],
)
def test_damage_is_refused_and_nothing_touched(
    suffix, outputs, damage, message, tmp_path
):
    path = tmp_path / f"scores{suffix}"
    write_shards(path, outputs)
    damage(path)
    assert_refused(path, ValueError, message)


def test_parts_without_statistics_are_read_instead(tmp_path):
    path = tmp_path / "scores.parquet"
    write_shards(path, ONE)
    for index in range(NUM_SHARDS):
        part = path / f"part-0000{index}-of-00003-00000.parquet"
        parquet.write_table(parquet.read_table(part), part, write_statistics=False)
    right = (path / PART).read_bytes()
    shutil.copy(path / FIRST_PART, path / PART)
    with pytest.raises(ValueError, match="Shard 1 of .* has rows 0 to 3 in .*from 3"):
        merge(path)
    (path / PART).write_bytes(right)
    (path / "_notes of a reader").write_text("which others skip")
    merge(path)
    assert parquet.read_table(path)["row"].to_pylist() == list(range(len(ONE)))


def test_the_extra_that_checks_parquet_is_named(tmp_path, monkeypatch):
    path = tmp_path / "scores.parquet"
    write_shards(path, ONE)
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ImportError, match=r"pip install .keras_mgpu_strategy\[parquet"):
        merge(path)
