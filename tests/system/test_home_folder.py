"""`~` in every path that a user gives, in Python and on the command line."""

import os
import pathlib

import h5py
import numpy as np
import pandas as pd
import pytest
import zarr
from command_line import mgpu_here, write_photos

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.inputs.by_name import named_rows
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.system.environment import expanded
from tests import file_runs

X = file_runs.rows(9)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """A home folder, and another folder to work in."""
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    (tmp_path / "work").mkdir()
    monkeypatch.chdir(tmp_path / "work")
    yield folder
    assert not os.path.exists("~")


@pytest.fixture(scope="module")
def predictor(strategies):
    with strategies[2].scope():
        return mgpu.Predictor(file_runs.classifier())


def test_a_leading_tilde_is_the_home_folder(home):
    assert expanded("~/a/~b") == f"{home}/a/~b"
    assert expanded(pathlib.Path("~")) == str(home)
    assert [expanded(path) for path in ("./~/a", "a/~", "/~")] == ["./~/a", "a/~", "/~"]


@pytest.fixture
def inputs(home):
    """Files of every format with the same rows."""
    np.save(home / "x.npy", X)
    np.savez(home / "x.npz", x=X)
    zarr.save_array(home / "x.zarr", X)
    with h5py.File(home / "x.h5", "w") as file:
        file["x"] = X
    frame = pd.DataFrame(X, columns=["a", "b"])
    frame.to_csv(home / "x.csv", index=False)
    (home / "x").mkdir()
    frame.to_parquet(home / "x" / "part-0.parquet")


def test_inputs(inputs, predictor):
    expected = predictor.predict(X, verbose=0)
    for x in (
        *("~/x.npy", "~/x.npz", "~/x.zarr", "~/x.h5", "~/x.csv", "~/x"),
        *(pathlib.Path("~/x.npy"), ["~/x/part-0.parquet"], {"x": "~/x.npy"}),
        *(mgpu.files.Npy("~/x.npy"), mgpu.files.Parquet("~/x")),
    ):
        found = predictor.predict(x, verbose=0)
        np.testing.assert_array_equal(found, expected, str(x))


def test_inputs_that_other_processes_open(inputs):
    named = named_rows("~/x.npy", as_source("~/x.npy"), None)
    (batch,) = named.batches(9)
    (opened,) = batch.inputs.open_fn().batches(9)
    np.testing.assert_array_equal(opened.inputs, X)


@pytest.mark.parametrize("many", [False, True])
def test_images(home, many):
    write_photos(home / "photos", 2)
    names = sorted(path.name for path in (home / "photos").iterdir())
    paths = [f"~/photos/{name}" for name in names] if many else "~/photos"
    source = mgpu.files.Images(paths, image_size=(4, 4)).open_rows(None)
    (batch,) = source.batches(9)
    assert batch.num_rows == 2


def test_outputs_shards_and_merges(home, predictor):
    for index in range(2):
        predictor.predict_to("~/o.npy", X, 4, verbose=0, shard=(index, 2))
    merge("~/o.npy")
    expected = predictor.predict(X, 4, verbose=0)
    np.testing.assert_array_equal(np.load(home / "o.npy"), expected)


def test_models(home, strategies):
    file_runs.classifier().save(home / "m.keras")
    with strategies[2].scope():
        loaded = mgpu.load("~/m.keras")
    assert loaded.predict(X, verbose=0).shape == (9, 3)


def test_the_command_line(home, inputs, capsys):
    file_runs.classifier().save(home / "m.keras")
    np.save(home / "labels.npy", np.zeros(9, int))
    flags = ("--output=~/o.npy", "--labels=~/labels.npy", "--profile=~/trace")
    mgpu_here("predict", "~/m.keras", "~/x.npy", *flags)
    assert f"output    {home}/o.npy" in capsys.readouterr().out
    assert np.load(home / "o.npy").shape == (9, 3)
    assert list((home / "trace").rglob("*"))
