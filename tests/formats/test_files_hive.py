"""Folders of Parquet files with names such as key=value."""

import os

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
from reading_files import check_rows, one, read

from keras_mgpu_strategy.files import Images, Parquet
from keras_mgpu_strategy.formats.by_path import file_input
from keras_mgpu_strategy.inputs import as_source

X = np.random.default_rng(0).normal(size=(10, 2)).astype(np.float32)
FRAME = pd.DataFrame(X, columns=["a", "b"])
TWO = one([2], name="x")


def save(path, **columns):
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(pa.table(columns or {"a": [1.0], "b": [2.0]}), path)


def write(folder, **keys):
    FRAME.assign(**keys).to_parquet(folder, partition_cols=list(keys))


def test_a_folder_is_read_as_pandas_reads_it(tmp_path):
    write(tmp_path / "x", year=[2023, 2024] * 5, month=[1, 1, 2, 2, 3] * 2)
    (tmp_path / "x" / "_SUCCESS").touch()
    (tmp_path / "x" / "year=2023" / ".part.crc").write_bytes(b"crc")
    expected = pd.read_parquet(tmp_path / "x")[["a", "b"]].to_numpy()
    assert file_input(str(tmp_path / "x")) == Parquet(str(tmp_path / "x"))
    source = as_source(tmp_path / "x", input_spec=TWO)
    assert source.num_rows == 10
    check_rows(source, expected, [(3, 0), (3, 4)])
    files = sorted(map(str, (tmp_path / "x").rglob("*.parquet")))
    check_rows(as_source(files, input_spec=TWO), expected, [(3, 0)])


@pytest.mark.parametrize(
    ("values", "dtype"),
    [
        ([1, 1, 2, 2, 10] * 2, tf.float32),
        ([1, 1, 2, 2, 10] * 2, tf.int32),
        ([0.5, 1e-3, -2, 0.5, 1] * 2, tf.float32),
        (["x/y", "é", "a=b", "0x1", " "] * 2, tf.string),
        (["1", "2", "3", "10", "20"] * 2, tf.string),
    ],
)
def test_keys_as_columns(values, dtype, tmp_path):
    write(tmp_path / "x", k=values)
    order = pd.read_parquet(tmp_path / "x")["a"].to_numpy()
    places = [int(np.flatnonzero(a == X[:, 0])[0]) for a in order]
    keys = [v.encode() for v in values] if dtype == tf.string else values
    expected = np.array(keys, dtype.as_numpy_dtype)[places]
    source = as_source(tmp_path / "x", input_spec=one([], dtype, "k"))
    check_rows(source, expected, [(3, 0)])
    files = sorted((tmp_path / "x").rglob("*.parquet"))
    source = Parquet(files, "k").open_rows(one([1], dtype))
    check_rows(source, expected[:, None], [(3, 2)])


def test_keys_of_digits_as_text(tmp_path):
    for key in ("007", "1e3"):
        save(tmp_path / f"k={key}" / "0.parquet")
    source = Parquet(tmp_path, "k").open_rows(one([], tf.string))
    check_rows(source, np.array([b"007", b"1e3"], object), [(1, 0)])
    source = Parquet(tmp_path, "k").open_rows(one([]))
    check_rows(source, np.array([7, 1000], np.float32), [(1, 0)])


def test_a_key_next_to_a_column(tmp_path):
    frame = pd.DataFrame({"a": X[:4, 0], "b": [1, 1, 2, 2]})
    frame.to_parquet(tmp_path / "x", partition_cols=["b"])
    expected = np.c_[X[:4, 0], [1, 1, 2, 2]].astype(np.float32)
    source = Parquet(tmp_path / "x", ["a", "b"]).open_rows(TWO)
    check_rows(source, expected, [(3, 0), (3, 3)])
    message = "1 columns of numbers, expected 2: received a; taken by name alone: b"
    with pytest.raises(ValueError, match=message):
        as_source(tmp_path / "x", input_spec=TWO)


def test_a_key_without_a_value(tmp_path):
    save(tmp_path / "k=1" / "0.parquet")
    save(tmp_path / "k=__HIVE_DEFAULT_PARTITION__" / "0.parquet")
    with pytest.raises(
        ValueError, match="PARTITION__/0.parquet, column 'k', row 0 has"
    ):
        read(Parquet(tmp_path, "k").open_rows(one([])), 1)
    source = Parquet(tmp_path, "k", missing_as_nan=True).open_rows(one([]))
    check_rows(source, np.array([1, np.nan], np.float32), [(1, 0)])
    os.remove(tmp_path / "k=1" / "0.parquet")
    source = Parquet(tmp_path, ["k", "a"], missing_as_nan=True).open_rows(TWO)
    check_rows(source, np.array([[np.nan, 1]], np.float32), [(1, 0)])


def test_a_key_that_the_model_cannot_hold(tmp_path):
    save(tmp_path / "k=1" / "0.parquet")
    save(tmp_path / "k=300" / "0.parquet")
    with pytest.raises(
        ValueError, match="k=300/0.parquet, column 'k', row 0 holds 300"
    ):
        read(Parquet(tmp_path, "k").open_rows(one([], tf.uint8)), 1)


def test_a_key_that_is_also_a_column(tmp_path):
    save(tmp_path / "a=7" / "0.parquet")
    expected = np.array([[1, 2]], np.float32)
    check_rows(as_source(tmp_path, input_spec=TWO), expected, [(1, 0)])


def test_a_key_that_not_all_files_have(tmp_path):
    save(tmp_path / "k=1" / "0.parquet")
    save(tmp_path / "0.parquet")
    check_rows(
        as_source(tmp_path, input_spec=TWO),
        np.array([[1, 2]] * 2, np.float32),
        [(1, 0)],
    )
    with pytest.raises(ValueError, match="columns: there is no 'k'"):
        Parquet(tmp_path, "k").open_rows(one([]))


def test_folders_that_are_refused(tmp_path):
    save(tmp_path / "k=1" / "0.parquet")
    (tmp_path / "k=1" / "notes.txt").touch()
    with pytest.raises(ValueError, match="k=1 holds more than Parquet files and .*"):
        as_source(tmp_path, input_spec=TWO)
    os.remove(tmp_path / "k=1" / "notes.txt")
    (tmp_path / "other").mkdir()
    with pytest.raises(ValueError, match=r"named key=value: other. Pass a list of the"):
        as_source(tmp_path, input_spec=TWO)
    (tmp_path / "empty" / "k=1").mkdir(parents=True)
    with pytest.raises(ValueError, match="The folders of .*empty hold no Parquet file"):
        as_source(tmp_path / "empty", input_spec=TWO)


def test_folders_of_images_with_such_names(tmp_path):
    (tmp_path / "class=cat").mkdir()
    (tmp_path / "class=cat" / "0.png").touch()
    assert file_input(tmp_path) == Images(tmp_path)
