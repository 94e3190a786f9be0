"""Files of every kind in and out of `mgpu predict`, and `mgpu merge`."""

import filecmp
import os
import pathlib
import subprocess
import sys
from typing import Any

import keras
import numpy as np
import pandas as pd
import pytest
import zarr
from command_line import DIGITS, IMAGES, LABELS, mgpu_here, predict_here, write_photos
from command_line import mgpu as run_mgpu

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.formats.registry import output_suffixes
from keras_mgpu_strategy.outputs.target import record_of
from tests import helpers
from tests.merging.sharded_outputs import ONE, write_shards

BATCH = "--batch_size=64"


def test_the_command_line_knows_the_formats_without_loading_them():
    code = (
        "import sys\n"
        "from keras_mgpu_strategy.cli import files, run\n"
        "from keras_mgpu_strategy.formats.registry import FORMATS\n"
        "assert FORMATS\n"
        "print({'tensorflow', 'pyarrow', 'zarr', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert (done.stdout, done.stderr) == ("set()\n", "")


@pytest.fixture(scope="module")
def expected():
    images = np.load(IMAGES)
    with mgpu.scope("cpu:0"):
        return mgpu.load(DIGITS).predict_proba(images, batch_size=64)


def read(path):
    """The only output of a file of any format, in the order of rows."""
    if path.suffix == ".npy":
        return np.load(path)
    if path.suffix == ".zarr":
        group: Any = zarr.open_group(path, mode="r")
        return group["output"][:]
    if path.suffix == ".csv":
        table = np.loadtxt(path, np.float32, delimiter=",", skiprows=1)
        assert table[:, 0].tolist() == list(range(len(table)))
        return table[:, 1:]
    table = pd.read_parquet(path).sort_values("row")
    assert table["row"].tolist() == list(range(len(table)))
    return np.stack(table["output"].tolist())


@pytest.mark.parametrize("suffix", output_suffixes())
def test_shards_merge_into_what_one_run_writes(suffix, expected, tmp_path, capsys):
    whole, merged = tmp_path / f"whole{suffix}", tmp_path / f"merged{suffix}"
    same = (DIGITS, IMAGES, "--devices=cpu:0", BATCH, "--verbose=0")
    predict_here(*same, f"--output={whole}")
    for index in range(3):
        predict_here(*same, f"--output={merged}", f"--shard={index}/3")
    assert "shard     2/3" in capsys.readouterr().out
    mgpu_here("merge", merged)
    assert (
        capsys.readouterr().out == f"shards    3\nrows      1,797\noutput    {merged}\n"
    )
    records = {record_of(merged), record_of(whole)}
    assert set(tmp_path.iterdir()) == {merged, whole, *records}
    np.testing.assert_array_equal(read(whole), expected)
    np.testing.assert_array_equal(read(merged), expected)
    if merged.is_file():
        assert filecmp.cmp(whole, merged, shallow=False)


def test_metrics_are_printed_by_runs_and_merges(tmp_path, capsys):
    flags = ("--devices=cpu:0,cpu:1", BATCH, f"--labels={LABELS}", "--verbose=0")
    flags = (*flags, "--metrics=accuracy,sparse_categorical_crossentropy")
    same = (DIGITS, IMAGES, *flags, f"--output={tmp_path / 'o.csv'}")

    def metrics():
        lines = capsys.readouterr().out.splitlines()
        return [line for line in lines if line.startswith(("accuracy", "sparse_cat"))]

    predict_here(*same)
    expected = metrics()
    assert expected[0] == "accuracy  0.9917"
    assert expected[1].startswith("sparse_categorical_crossentropy 0.0")
    predict_here(*same, "--resume")  # which has finished
    assert metrics() == expected
    merged = tmp_path / "m.csv"
    for index in range(2):
        predict_here(*same[:-1], f"--output={merged}", f"--shard={index}/2")
    assert len(metrics()) == 4
    mgpu_here("merge", merged)
    assert metrics() == expected


def test_labels_in_a_column(two, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(0).standard_normal((9, 2))
    table = pd.DataFrame(rows, columns=["a", "b"]).assign(label=np.arange(9))
    table.to_parquet("rows.parquet")
    same = (two, "rows.parquet", "--output=o.npy", "--method=predict", "--columns=a,b")
    predict_here(*same, "--metrics=mae", "--labels=label")
    mean = np.abs(rows - np.arange(9)[:, None]).mean()
    assert f"\nmae       {mean:#.4g}\n" in capsys.readouterr().out
    with pytest.raises(SystemExit, match="2"):
        predict_here(*same, "--metrics=mae", "--labels=other", "--overwrite")
    assert "'other'" in capsys.readouterr().err


def test_a_name_that_cannot_be_printed_is_spelled_out(tmp_path):
    path = tmp_path / os.fsdecode(b"caf\xe9.npy")
    write_shards(path, ONE)
    result = run_mgpu("merge", path, PYTHONIOENCODING="utf-8:strict")
    assert (result.returncode, result.stderr) == (0, "")
    assert result.stdout.endswith("/caf\\udce9.npy\n")
    assert path.exists()


def test_columns_of_a_table(tmp_path, expected, capsys):
    rows = np.load(IMAGES)[:100].reshape(100, 64)
    names = [f"pixel_{index}" for index in range(64)]
    pd.DataFrame(rows, columns=names).assign(other=1.0).to_csv(
        tmp_path / "rows.csv", index=False
    )
    pd.DataFrame(rows, columns=names).assign(other=1.0).to_parquet(
        tmp_path / "rows.parquet"
    )
    for name in ("rows.csv", "rows.parquet"):
        output = tmp_path / f"{name}.npy"
        columns = f"--columns={','.join(names)}"
        predict_here(DIGITS, tmp_path / name, f"--output={output}", columns)
        np.testing.assert_allclose(
            np.load(output), expected[:100], rtol=1e-5, atol=1e-6
        )


def test_columns_beside_the_results(two, tmp_path, capsys):
    rows = np.random.default_rng(0).random((30, 2), np.float32)
    table = pd.DataFrame(rows, columns=["a", "b"]).assign(
        id=[f"{row:03d}" for row in range(30)],
        date=pd.Timestamp("2024-01-02", tz="UTC"),
    )
    table.to_parquet(tmp_path / "in.parquet")
    table.to_csv(tmp_path / "in.csv", index=False)
    same = (two, tmp_path / "in.parquet", BATCH, "--keep=id,date")
    predict_here(*same, f"--output={tmp_path}/o.parquet")
    found = pd.read_parquet(tmp_path / "o.parquet")
    assert [*found.columns] == ["row", "id", "date", "output"]
    pd.testing.assert_frame_equal(found[["id", "date"]], table[["id", "date"]])
    predict_here(two, tmp_path / "in.csv", "--keep=id", f"--output={tmp_path}/o.csv")
    found = pd.read_csv(tmp_path / "o.csv", dtype={"id": str})
    assert found["id"].tolist() == table["id"].tolist()
    for name, message in (
        ("o.npy", "--keep goes with a .parquet or .csv output"),
        ("p.parquet", "keep or labels: there is no 'no'"),
    ):
        wrong = (two, tmp_path / "in.csv", "--keep=no", f"--output={tmp_path / name}")
        with pytest.raises(SystemExit, match="2"):
            predict_here(*wrong)
        assert message in capsys.readouterr().err


def test_outputs_of_layers(tmp_path, capsys):
    inputs = keras.Input((2,), name="x")
    pool = keras.layers.Dense(2, name="pool")(inputs)
    inner = keras.Model(inputs, pool, name="encoder")
    model = keras.Model(inputs, keras.layers.Dense(1, name="head")(inner(inputs)))
    rows = np.random.default_rng(0).random((5, 2), np.float32)
    model.save(tmp_path / "m.keras")
    np.save(tmp_path / "rows.npy", rows)
    same = (tmp_path / "m.keras", tmp_path / "rows.npy", "--method=predict")
    output = f"--output={tmp_path}/o.parquet"
    predict_here(*same, output, "--outputs=encoder/pool,head")
    table = pd.read_parquet(tmp_path / "o.parquet")
    assert [*table.columns] == ["row", "encoder_pool", "head"]
    np.testing.assert_allclose(np.stack(table["encoder_pool"]), inner(rows), rtol=1e-5)
    np.testing.assert_allclose(np.stack(table["head"]), model(rows), rtol=1e-5)
    predict_here(*same, f"--output={tmp_path}/o.npy", "--outputs=encoder/pool")
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), inner(rows), rtol=1e-5)


@pytest.fixture
def two(tmp_path):
    """A model that returns its two features."""
    inputs = keras.Input((2,), name="x")
    keras.Model(inputs, keras.layers.Identity()(inputs)).save(tmp_path / "two.keras")
    return tmp_path / "two.keras"


def predict_rows(model, *arguments):
    output = model.parent / "o.npy"
    same = (f"--output={output}", "--method=predict", "--overwrite", "--verbose=0")
    predict_here(model, *arguments, *same)
    return np.load(output)


def test_a_csv_file_without_names(two, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text("1,2\n3,4\n")
    with pytest.raises(SystemExit, match="2"):
        predict_rows(two, path)
    error = capsys.readouterr().err
    assert "'1', '2' in its first line, which may be a row or names of c" in error
    assert """if it is a row, --read_options='{"header": null}', which""" in error
    found = predict_rows(two, path, """--read_options={"header": null}""")
    np.testing.assert_array_equal(found, [[1, 2], [3, 4]])
    flags = ("--columns=1,0", """--read_options={"header": null}""")
    np.testing.assert_array_equal(predict_rows(two, path, *flags), [[2, 1], [4, 3]])


def test_a_csv_file_of_excel(two, tmp_path, capsys):
    path = tmp_path / "rows.csv"
    path.write_text("a;b\n1,5;2\n3;4\n", "utf-8-sig")
    with pytest.raises(SystemExit, match="2"):
        predict_rows(two, path)
    assert "received a (text), b. Pass --columns=A,B." in capsys.readouterr().err
    found = predict_rows(two, path, """--read_options={"decimal": ","}""")
    np.testing.assert_array_equal(found, [[1.5, 2], [3, 4]])


@pytest.mark.filterwarnings("ignore:Results are NaN")
def test_missing_values_of_tables(two, tmp_path, capsys):
    table = pd.DataFrame({"a": pd.array([1, None], "Int64"), "b": [3, 4]})
    table.to_csv(tmp_path / "rows.csv", index=False)
    table.to_parquet(tmp_path / "rows.parquet")
    for path in (tmp_path / "rows.csv", tmp_path / "rows.parquet"):
        with pytest.raises(SystemExit, match="1"):
            predict_rows(two, path)
        error = capsys.readouterr().err
        assert f"{path}, column 'a', row 1 h" in error
        assert "pass --missing_as_nan" in error
        found = predict_rows(two, path, "--missing_as_nan")
        np.testing.assert_array_equal(found, [[1, 3], [np.nan, 4]])


def test_folders_and_lists_of_parquet_files(two, tmp_path, capsys):
    table = pd.DataFrame({"a": [1.0, 2, 3], "b": [4.0, 5, 6], "key": [7, 7, 8]})
    table.to_parquet(tmp_path / "rows", partition_cols=["key"])
    expected = table[["a", "b"]].to_numpy()
    np.testing.assert_array_equal(predict_rows(two, tmp_path / "rows"), expected)
    found = predict_rows(two, tmp_path / "rows", "--columns=key,a")
    np.testing.assert_array_equal(found, table[["key", "a"]].to_numpy())
    files = sorted((tmp_path / "rows").rglob("*.parquet"))
    np.testing.assert_array_equal(predict_rows(two, *files), expected)
    found = predict_rows(two, *files[::-1], "--columns=b,a")
    np.testing.assert_array_equal(found, [[6, 3], [4, 1], [5, 2]])


def test_several_images(tmp_path, capsys):
    pixels = write_photos(tmp_path / "photos", 3)
    photos = [tmp_path / "photos" / f"{number:04d}.png" for number in (2, 0)]
    output = tmp_path / "o.npy"
    predict_here(DIGITS, *photos, "--preprocess=unit", f"--output={output}")
    with mgpu.scope("cpu:0"):
        expected = mgpu.load(DIGITS).predict_proba(pixels[[2, 0]])
    np.testing.assert_allclose(np.load(output), expected, 1e-5, 1e-6)


def test_a_folder_of_images(tmp_path, capsys):
    pixels = write_photos(tmp_path / "photos", 20)
    (tmp_path / "photos" / "0007.png").write_bytes(b"no image")
    with mgpu.scope("cpu:0"):
        expected = mgpu.load(DIGITS).predict_proba(pixels)
    same = (DIGITS, tmp_path / "photos", "--preprocess=unit", "--verbose=0")
    predict_here(*same, f"--output={tmp_path}/o.parquet", "--on_bad_file=skip")
    assert capsys.readouterr().err == ""
    table = pd.read_parquet(tmp_path / "o.parquet").set_index("file")["output"]
    assert list(table.index) == [f"{number:04d}.png" for number in range(20)]
    assert table.isna().to_numpy().nonzero()[0].tolist() == [7]
    kept = np.delete(expected, 7, axis=0)
    np.testing.assert_allclose(np.stack(list(table.dropna())), kept, 1e-5, 1e-6)

    predict_here(
        *(*same, f"--output={tmp_path}/o.npy", "--on_bad_file=skip"),
        *("--image_size=8x8", f"--labels={_labels(tmp_path, 20)}"),
    )
    printed = capsys.readouterr()
    assert (
        printed.err.startswith("mgpu: note: ") and "will not hold the n" in printed.err
    )
    assert "\naccuracy  1.000\n" in printed.out  # of the 19 that could be read
    assert np.isnan(np.load(tmp_path / "o.npy")).any(axis=1).nonzero()[0].tolist() == [
        7
    ]


def test_a_damaged_image_ends_a_run_that_can_be_resumed(tmp_path, capsys):
    write_photos(tmp_path / "photos", 20)
    (tmp_path / "photos" / "0017.png").write_bytes(b"no image")
    same = (DIGITS, tmp_path / "photos", "--preprocess=unit", "--batch_size=4")
    same = (*same, f"--output={tmp_path}/o.csv", "--verbose=0", "--devices=cpu:0")
    with pytest.raises(SystemExit, match="1"):
        predict_here(*same)
    error, where, how = capsys.readouterr().err.splitlines()
    assert "Row 17: the image file" in error and "--on_bad_file=skip" in error
    assert "while rows 17 to" in where
    assert " of 20 rows are safe. To resume: mgpu predict " in how
    assert how.endswith(" --resume")
    predict_here(*same, "--resume", "--on_bad_file=skip")
    table = pd.read_csv(tmp_path / "o.csv")
    assert table["row"].tolist() == list(range(20))
    assert table["output_0"].isna().to_numpy().nonzero()[0].tolist() == [17]


def test_labels_of_another_number_of_rows(tmp_path, capsys):
    write_photos(tmp_path / "photos", 4)
    labels = _labels(tmp_path, 5)
    with pytest.raises(SystemExit, match="2"):
        predict_here(
            *(DIGITS, tmp_path / "photos", f"--output={tmp_path}/o.npy"),
            *("--verbose=0", f"--labels={labels}"),
        )
    assert "Received 4 rows in x, but 5 in labels." in capsys.readouterr().err
    assert not pathlib.Path(tmp_path / "o.npy").exists()


@pytest.mark.filterwarnings("default:Results are NaN")
def test_results_that_are_not_finite(tmp_path, capsys):
    # No layer with a ReLU: oneDNN's turns NaN into 0.
    model, rows = helpers.dense_model(), helpers.numbered_rows(8)
    model.save(tmp_path / "model.keras")
    rows[3] = np.nan
    np.save(tmp_path / "rows.npy", rows)
    paths = (tmp_path / "model.keras", tmp_path / "rows.npy")
    same = (*paths, "--verbose=0", f"--output={tmp_path}/o.npy")
    with pytest.raises(SystemExit, match="1"):
        predict_here(*same, "--on_nonfinite=raise", "--method=predict")
    assert "NaN or infinite in 1 rows: 3." in capsys.readouterr().err
    predict_here(*same, "--overwrite", "--method=predict")
    warning = capsys.readouterr().err
    assert warning.startswith(
        "mgpu: warning: Results are NaN or infinite in 1 rows: 3."
    )
    assert "--on_nonfinite=ignore" in warning and warning.count("\n") == 1


def _labels(folder, count):
    labels = np.load(LABELS)
    np.save(folder / "labels.npy", np.resize(labels, count))
    return folder / "labels.npy"
