"""Bare paths, lists and dicts of them, `steps`, identities, and classes as values."""

import copy
import itertools
import pathlib
import pickle
import shutil
import sys

import h5py
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf
import zarr
from reading_files import check_rows, one, read

from keras_mgpu_strategy.files import (
    Csv,
    FileInput,
    Hdf5,
    Images,
    Npy,
    Npz,
    Parquet,
    TFRecords,
    Zarr,
)
from keras_mgpu_strategy.formats.by_path import file_input
from keras_mgpu_strategy.inputs import as_source

A = np.arange(23, dtype=np.float32)
B = np.arange(46).reshape(23, 2)


def parse(serialized):
    return tf.io.decode_raw(serialized, tf.float32)


def save(folder, name, rows=A):
    """Writes a file of rows, in the format of its suffix."""
    path = folder / name
    writers = {
        ".npy": lambda: np.save(path, rows),
        ".npz": lambda: np.savez(path, a=rows),
        ".parquet": lambda: pq.write_table(pa.table({"a": rows}), path),
        ".csv": lambda: np.savetxt(path, rows, header="a", comments=""),
        ".h5": lambda: h5py.File(path, "w").create_dataset("a", data=rows).file.close(),
        ".zarr": lambda: zarr.create_array(store=str(path), data=rows),
        ".png": lambda: tf.io.write_file(
            str(path), tf.io.encode_png(np.zeros((2, 2, 3), np.uint8))
        ),
    }
    writers[path.suffix.lower()]()
    return path


@pytest.mark.parametrize(
    ("name", "kind"),
    [
        ("x.npy", Npy),
        ("x.npz", Npz),
        ("x.parquet", Parquet),
        ("x.csv", Csv),
        ("x.h5", Hdf5),
        ("x.zarr", Zarr),
        ("x.Parquet", Parquet),
    ],
)
def test_a_path_is_known_by_its_suffix(name, kind, tmp_path):
    saved = save(tmp_path, name)
    for path in (saved, str(saved)):
        assert file_input(path) == kind(path)
        check_rows(as_source(path, input_spec=one([])), A, [(5, 3)])


@pytest.mark.parametrize("name", ["x.png", "x.JPG"])
def test_an_image(name):
    assert file_input(name) == Images(name)
    assert file_input([name, "y.gif"]) == Images([name, "y.gif"])


def test_folders_are_known_by_what_they_hold(tmp_path):
    for name in ("tables", "images/cats", "array", "named.parquet"):
        (tmp_path / name).mkdir(parents=True)
    save(tmp_path / "tables", "0.parquet")
    (tmp_path / "tables/_SUCCESS").write_text("")
    save(tmp_path / "images/cats", "0.png")
    (tmp_path / "images/labels.csv").write_text("")
    save(tmp_path, "x.zarr").rename(tmp_path / "zarr")
    assert file_input(tmp_path / "tables") == Parquet(tmp_path / "tables")
    assert file_input(tmp_path / "images") == Images(tmp_path / "images")
    assert file_input(tmp_path / "zarr") == Zarr(tmp_path / "zarr")
    assert file_input(str(tmp_path / "named.parquet")) == Parquet(
        str(tmp_path / "named.parquet")
    )


def test_suffixes_in_capitals(tmp_path):
    for name in ("0.PARQUET", "1.parquet"):
        save(tmp_path, name)
    check_rows(as_source(tmp_path, input_spec=one([])), np.tile(A, 2), [(5, 3)])
    named = save(tmp_path, "x.npy").rename(tmp_path / "X.NPY")
    check_rows(as_source(named, input_spec=one([])), A, [(5, 3)])
    check_rows(as_source({"a": named}), {"a": A}, [(5, 3)])


def test_a_folder_of_several_kinds_or_none(tmp_path):
    message = "Cannot tell what to read from the folder .*, which holds nothing. Expect"
    with pytest.raises(ValueError, match=message):
        as_source(tmp_path)
    save(tmp_path, "0.parquet")
    save(tmp_path, "1.png")
    with pytest.raises(ValueError, match="which holds 0.parquet, 1.png. Expected .npy"):
        as_source(tmp_path)


@pytest.mark.parametrize("x", ["x.xyz", "x.pt", pathlib.Path("notes.txt")])
def test_an_unknown_suffix(x):
    message = (
        f"Cannot read rows from {x}, expected .npy, .npz, .parquet .*, .csv, .h5, .zarr"
        r".*images, TFRecords\(path, parse_fn\).*np.asarray\(list_of_strings\)"
    )
    with pytest.raises(ValueError, match=message):
        as_source(x)


def test_a_missing_path(tmp_path):
    with pytest.raises(FileNotFoundError, match="no file or folder .*np.asarray"):
        as_source(tmp_path / "photos")
    with pytest.raises(FileNotFoundError, match="There is no file .*x.npy"):
        as_source(tmp_path / "x.npy")


@pytest.mark.parametrize("x", ["x.tfrecord", "x.tfrecords.gz", ["x.tfrecord"]])
def test_tfrecords_need_a_function(x):
    with pytest.raises(ValueError, match=r"Pass TFRecords\(path, parse_fn\), where"):
        as_source(x)


@pytest.mark.parametrize(
    "x",
    [["a", "b"], ("x.npy", "y.npy"), ["x.csv"], ["x.png", "y.parquet"], ["x.h5"] * 2],
)
def test_lists_that_cannot_be_read(x):
    message = r"^Pass strings that are data as np.asarray\(list.*received .*\.npy files"
    with pytest.raises(ValueError, match=message):
        as_source(x)


def test_a_dict_of_npy_files(tmp_path):
    paths = {"a": str(save(tmp_path, "1.npy")), "b": save(tmp_path, "0.npy", B)}
    inputs = {"a": one([1]), "b": one([2], tf.int64)}
    source = as_source(paths, input_spec=inputs)
    assert source.num_rows == 23
    check_rows(source, {"a": A, "b": B})
    same = as_source({"a": Npy(paths["a"]), "b": paths["b"]}, input_spec=inputs)
    assert same.identity == source.identity
    check_rows(same, {"a": A, "b": B}, [(5, 3)])
    other = as_source({"a": paths["b"], "b": paths["a"]})
    assert other.identity != source.identity


def test_a_dict_of_other_files(tmp_path):
    message = "A dict of paths is read if all are .npy .*; received x.parquet"
    with pytest.raises(ValueError, match=message):
        as_source({"a": save(tmp_path, "x.npy"), "b": "x.parquet"})
    with pytest.raises(FileNotFoundError, match="There is no file y.npy"):
        as_source({"a": save(tmp_path, "x.npy"), "b": "y.npy"})
    save(tmp_path, "y.npy", B[:4])
    with pytest.raises(ValueError, match=r"unequal length \(x\['a'\]: 23, x\['b'\]: 4"):
        as_source({"a": tmp_path / "x.npy", "b": tmp_path / "y.npy"})


def test_paths_among_arrays_are_not_opened():
    with pytest.raises(TypeError, match=r"x\['b'\] is str 'b.npy'.*read a file, open"):
        as_source({"a": A, "b": "b.npy"})
    with pytest.raises(TypeError, match=r"x\[1\] is str 'b.npy'.*read a file, open"):
        as_source([A, "b.npy"])
    with pytest.raises(TypeError, match="x is type.*It is a class; pass an instance"):
        as_source(Npy)


def test_steps_count_batches_if_the_rows_are_known(tmp_path):
    path = save(tmp_path, "x.parquet")
    source = as_source(path, steps=2, batch_size=5, input_spec=one([]))
    assert source.num_rows == 10
    check_rows(source, A[:10], [(4, 0), (4, 6), (20, 0), (3, 10)])
    assert source.identity == Parquet(path).open_rows(one([])).identity
    with pytest.raises(ValueError, match="Received start=11, expected .* from 0 to 10"):
        source.batches(4, 11)
    assert as_source(path, steps=2, input_spec=one([])).num_rows == 23
    with pytest.warns(
        UserWarning, match="steps=9 batches were asked for, but it has 5"
    ):
        source = as_source(path, steps=9, batch_size=5, input_spec=one([]))
    check_rows(source, A, [(4, 0)])


def test_steps_need_a_batch_size_if_the_rows_are_unknown(tmp_path):
    path = save(tmp_path, "x.csv")
    with pytest.raises(
        ValueError, match="steps=2 for Csv, whose number of rows is not"
    ):
        as_source(path, steps=2, input_spec=one([]))
    source = as_source(path, steps=2, batch_size=5, input_spec=one([]))
    assert source.num_rows is None
    check_rows(source, A[:10], [(4, 0), (4, 6), (20, 0)])
    source = as_source(path, steps=5, batch_size=5, input_spec=one([]))
    with pytest.warns(UserWarning, match="steps=5 .*, but it has 5|ran out") as caught:
        read(source, 4)
        source = as_source(path, steps=6, batch_size=5, input_spec=one([]))
        read(source, 4)
    assert len(caught) == 1


@pytest.mark.parametrize(
    ("name", "package", "extra"),
    [
        ("x.parquet", "pyarrow", "parquet"),
        ("x.csv", "pandas", "pandas"),
        ("x.h5", "h5py", "hdf5"),
        ("x.zarr", "zarr", "zarr"),
    ],
)
def test_a_missing_package(name, package, extra, tmp_path, monkeypatch):
    path = save(tmp_path, name)
    monkeypatch.setitem(sys.modules, package, None)
    message = (
        rf"needs the package {package}, which cannot be imported .*{package}.*"
        rf'`pip install "keras_mgpu_strategy\[{extra}\]"`'
    )
    with pytest.raises(ImportError, match=message):
        as_source(path, input_spec=one([]))


VALUES = [
    Npy("x.npy"),
    Npz("x.npz", {"a": "b"}),
    Parquet(["x.parquet", pathlib.Path("y.parquet")], ["a", "b"], missing_as_nan=True),
    Csv("x.csv", None, {"sep": ";"}, missing_as_nan=True),
    TFRecords("x.tfrecord", parse, 7),
    Hdf5(pathlib.Path("x.h5"), "a/b"),
    Zarr("x.zarr"),
]


@pytest.mark.parametrize("value", VALUES, ids=lambda value: type(value).__name__)
def test_the_classes_are_plain_values(value):
    again = pickle.loads(pickle.dumps(value))
    assert again == value == copy.deepcopy(value)
    assert repr(again) == repr(value) and "x." in repr(value)
    assert isinstance(value, FileInput)
    with pytest.raises(AttributeError):
        value.path = "y"


@pytest.mark.parametrize("kind", [Parquet, Images, lambda paths: TFRecords(paths, len)])
def test_reprs_show_the_first_of_many_paths(kind):
    many = repr(kind([f"{index}.x" for index in range(5000)]))
    assert "(paths=['0.x', '1.x', ... 4,998 more], " in many
    assert len(many) < 160
    assert "'a.x', 'b.x'" in repr(kind(["a.x", "b.x"]))


@pytest.mark.parametrize("name", ["x.npy", "x.npz", "x.parquet", "x.h5", "x.zarr"])
def test_the_identity_is_that_of_the_files(name, tmp_path):
    path = save(tmp_path, name)
    identity = as_source(path, input_spec=one([])).identity
    assert identity == as_source(path, input_spec=one([])).identity
    assert "23 rows" in str(identity) and str(tmp_path) not in str(identity)
    (tmp_path / "moved").mkdir()
    moved = tmp_path / "moved" / name
    shutil.move(path, moved)
    assert as_source(moved, input_spec=one([])).identity == identity
    save(tmp_path, name, A[:22])
    assert as_source(path, input_spec=one([])).identity != identity


def test_the_identity_distinguishes_columns_and_options(tmp_path):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n1,2\n")
    kinds = [Csv(path, "a"), Csv(path, "b"), Csv(path, "a", {"sep": ","})]
    origins = [kind.open_rows(one([])).origin().about for kind in kinds]
    assert all(x != y for x, y in itertools.combinations(origins, 2))
    pq.write_table(pa.table({"a": A, "b": A}), tmp_path / "x.parquet")
    kinds = [Parquet(tmp_path / "x.parquet", name) for name in "ab"]
    assert len({kind.open_rows(one([])).identity for kind in kinds}) == 2
