"""Outputs stay in the folder asked for, whatever names and links there are."""

import csv
import os

import keras
import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.formats.registry import output_suffixes, writer_of
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.outputs import journal
from keras_mgpu_strategy.outputs.column_names import is_plain, plain_name, unique
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.outputs.durable import Appender, make_folder, write_whole
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.journal import Progress
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import Target
from keras_mgpu_strategy.types import HostBatch, RowMarks
from tests.merging.sharded_outputs import TWO, write_shards

ROWS = 6
VALUES = np.arange(ROWS, dtype=np.float32)
HARMFUL = ["../../x", "/etc/x", "a/b", "a\\b", "nul\0l", "two\nlines", "..", ".", ""]
HARMFUL += ["~/x", "$HOME", "-rf", "con", "aux.txt", "COM1", "row", "file", "zarr.json"]
HARMFUL += [".hidden", "__zarr", "c:/x", "x" * 300, "\u202egpj", "Row", "index", " "]


def everything_in(folder):
    return sorted(p.relative_to(folder).as_posix() for p in folder.rglob("*"))


def write(path, outputs, names=None):
    columns = columns_of(outputs)
    layout = Layout(columns, 0, ROWS, ROWS, names is not None)
    sink = writer_of(path).create(path, layout)
    sink.write(HostBatch(0, outputs, RowMarks(names)))
    sink.finish()
    return [column.name for column in columns]


@pytest.mark.parametrize("suffix", output_suffixes())
def test_names_of_outputs_lead_nowhere_else(suffix, tmp_path):
    folder = tmp_path / "deep" / "in"
    folder.mkdir(parents=True)
    names = write(folder / f"scores{suffix}", dict.fromkeys(HARMFUL, VALUES))
    assert len({name.casefold() for name in names}) == len(HARMFUL)
    assert everything_in(tmp_path)[:3] == ["deep", "deep/in", f"deep/in/scores{suffix}"]
    found = everything_in(folder / f"scores{suffix}")
    assert all("/" not in name or suffix == ".zarr" for name in found)
    if suffix == ".npy":
        assert found == sorted([*(f"{name}.npy" for name in names), "index.json"])
    if suffix == ".zarr":
        group = zarr.open_group(folder / "scores.zarr", mode="r")
        assert sorted(group.array_keys()) == sorted(names)
    if suffix == ".parquet":
        table = pq.read_table(folder / "scores.parquet")
        assert table.column_names == ["row", *names]
    if suffix == ".csv":
        with open(folder / "scores.csv", newline="", encoding="utf-8") as file:
            assert len(next(csv.reader(file))) == 1 + len(names)


@settings(max_examples=200, deadline=None)
@given(texts=st.lists(st.one_of(st.text(max_size=9), st.sampled_from(HARMFUL))))
def test_plain_names_are_plain(texts):
    for text in texts:
        name = plain_name(text)
        assert plain_name(name) == name
        assert name not in ("", ".", "..") and not name.startswith((".", "__"))
        assert (
            not set(name) & set('/\\:*?"<>|\0\n\r') and name.isprintable() is not None
        )
        assert len(name.encode()) <= 160 and name == name.rstrip(". ")
    names = unique(map(plain_name, texts))
    assert all(map(is_plain, names))


@pytest.mark.parametrize("suffix", [".parquet", ".csv", ".zarr"])
def test_names_of_images_are_only_text(suffix, tmp_path):
    """In a table they are cells, with whatever a file name can hold."""
    names = ["../../x", "a\nb", 'say "a,b"', "=1+1", "\r", "a\ud800b"]
    folder = tmp_path / "in"
    folder.mkdir()
    path = folder / f"scores{suffix}"
    write(path, VALUES, names)
    shown = [*names[:5], "a\\ud800b"]
    if suffix == ".parquet":
        assert pq.read_table(path)["file"].to_pylist() == shown
    elif suffix == ".zarr":
        assert zarr.open_array(path / "file", mode="r")[:].tolist() == shown
    else:
        with open(path, newline="", encoding="utf-8") as file:
            assert [record[1] for record in csv.reader(file)][1:] == shown
    assert os.listdir(tmp_path) == ["in"]


@pytest.fixture
def victim(tmp_path):
    """A file of someone else."""
    path = tmp_path / "elsewhere" / "victim"
    path.parent.mkdir()
    path.write_bytes(b"precious" * 1000)
    yield path
    assert path.read_bytes() == b"precious" * 1000
    assert os.listdir(path.parent) == ["victim"]


NAMES = (
    *("{}", "{}.partial", "{}.journal", ".{}.journal.partial", "{}.partial.old"),
    ".{}.finished",
)


@pytest.mark.parametrize("suffix", output_suffixes())
def test_links_at_names_of_unfinished_files_are_not_followed(suffix, victim, tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / f"scores{suffix}"
    for name in NAMES:
        (folder / name.format(path.name)).symlink_to(victim)
    with mgpu.scope("cpu:0"):
        predictor = mgpu.Predictor(keras.Sequential([keras.Input((2,)), _double()]))
    rows = np.ones((ROWS, 2), np.float32)
    predictor.predict_to(path, rows, method="predict", verbose=0, overwrite=True)
    assert not path.is_symlink() and path.exists()
    finished = f".{path.name}.finished"
    hidden = [entry for entry in everything_in(folder) if entry.startswith(".")]
    assert hidden == [finished] and not (folder / finished).is_symlink()


def _double():
    return keras.layers.Rescaling(2.0)


def test_links_within_an_output_are_not_written_through(victim, tmp_path):
    path = tmp_path / "scores.zarr"
    path.mkdir()
    layout = Layout(columns_of(VALUES), 0, ROWS, 2 * ROWS, False, Shard(0, 2), 2)
    (path / "output").symlink_to(victim.parent)
    with pytest.raises(FileExistsError, match="output is a link, and links are not"):
        writer_of("o.zarr").create(path, layout)


@pytest.mark.parametrize("name", ["zarr.json", ".zarr.json.0-of-2.partial", "c.0"])
def test_links_among_the_files_of_an_output_are_replaced(name, victim, tmp_path):
    path = tmp_path / "scores.zarr" / "output"
    path.mkdir(parents=True)
    layout = Layout(columns_of(VALUES), 0, ROWS, 2 * ROWS, False, Shard(0, 2), 2)
    (path.parent / name).symlink_to(victim)
    if name != "zarr.json":
        (path / name).symlink_to(victim)
    sink = writer_of("o.zarr").create(path.parent, layout)
    sink.write(HostBatch(0, VALUES))
    sink.finish()
    assert not (path / "c.0").is_symlink()


def test_a_sharded_output_that_is_a_link_is_refused(victim, tmp_path):
    path = tmp_path / "scores.zarr"
    path.symlink_to(victim.parent)
    with pytest.raises(FileExistsError, match="scores.zarr is a link"):
        Target(path, Shard(0, 2), is_shared=True).check(resume=False, overwrite=True)
    with pytest.raises(FileExistsError, match="scores.zarr is a link"):
        make_folder(path)


def test_an_unfinished_output_that_became_a_link_is_not_resumed(victim, tmp_path):
    link = tmp_path / "scores.npy.journal"
    written = journal.create(tmp_path / "real", {"run": {}, "layout": []})
    written.add(Progress(1, 0, 1, {"rows": 1}))
    written.close()
    link.symlink_to(tmp_path / "real")
    with pytest.raises(ValueError, match="is a link, which is not followed"):
        journal.read(link)
    other = tmp_path / "scores.npy.partial"
    other.symlink_to(victim)
    with pytest.raises(ValueError, match="is a link, which is not followed"):
        Appender(other, kept=4)


def test_a_new_file_takes_the_place_of_a_link(victim, tmp_path):
    for name in ("appended", ".whole.partial", "whole"):
        (tmp_path / name).symlink_to(victim)
    file = Appender(tmp_path / "appended")
    file.put(b"abc", 0)
    file.close()
    write_whole(tmp_path / "whole", b"abc")
    for name in ("appended", "whole"):
        assert not (tmp_path / name).is_symlink()
        assert (tmp_path / name).read_bytes() == b"abc"


def test_files_of_merge_are_not_written_through_links(victim, tmp_path):
    folder = tmp_path / "shared"
    folder.mkdir()
    path = folder / "scores.npy"
    write_shards(path, TWO)
    for name in ("scores.npy.merge.partial", ".scores.npy.merge.partial"):
        (folder / name).symlink_to(victim)
    merge(path)
    assert sorted(os.listdir(folder)) == [".scores.npy.finished", "scores.npy"]


@pytest.mark.parametrize("suffix", output_suffixes())
def test_marks_outside_of_an_output_are_refused(suffix, tmp_path):
    path = tmp_path / f"scores{suffix}"
    layout = Layout(columns_of(VALUES), 0, ROWS, ROWS)
    sink = writer_of(path).create(path, layout)
    sink.write(HostBatch(0, VALUES))
    mark = sink.flush()
    sink.close()
    for row in (-1, ROWS + 1):
        message = f"marked at row {row}, but holds rows 0 to 6"
        with pytest.raises(ValueError, match=message):
            writer_of(path).reopen(path, layout, {**mark, "rows": row})
    writer_of(path).reopen(path, layout, mark).close()
