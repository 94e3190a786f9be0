"""Columns of the input next to the results: those that a join of pandas would give."""

import contextlib
import datetime
import decimal
import functools

import keras
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import files
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.runs import file_writer
from keras_mgpu_strategy.runs.run import Run
from tests import file_runs
from tests.outputs import places
from tests.resuming import assert_same_files, uninterrupted, write
from tests.runs.to_file.test_predict_to_killed import snapshots

NUM_ROWS = 61
X = file_runs.rows(NUM_ROWS)
KEEP = ["id", "when", "kind", "price", "day", "count", "flag", "raw"]


def frame():
    """Two features and columns of many types, some with missing values."""
    rows = np.arange(NUM_ROWS)
    day = datetime.date(2024, 2, 27)
    return pd.DataFrame(
        {
            "id": [f"{row:03d}, \u00e4" for row in rows],
            "a": X[:, 0],
            "when": pd.date_range(
                "2024-03-30", periods=NUM_ROWS, freq="h", tz="Europe/Berlin"
            ),
            "kind": pd.Categorical.from_codes(rows % 3 - 1, ["u", "v"]),
            "price": [decimal.Decimal(int(row)) / 4 for row in rows],
            "day": [
                None if row < 40 else day + datetime.timedelta(int(row)) for row in rows
            ],
            "b": X[:, 1],
            "count": pd.array([None if row < 40 else row for row in rows], "Int64"),
            "flag": rows % 2 == 0,
            "raw": [b"\xff" if row % 5 else None for row in rows],
        },
        index=pd.Index(rows + 1000, name="key"),
    )


def read(path):
    """A finished output as pandas reads it, in the order of rows."""
    table = pd.read_parquet(path) if path.is_dir() else pd.read_csv(path)
    assert table["row"].tolist() == list(range(len(table)))
    return table


def expected_table():
    """The kept columns, as pyarrow reads the frame; categories as their values."""
    plain = frame()[KEEP].astype({"kind": "str"})
    return pa.Table.from_pandas(plain, preserve_index=False)


WIDEST = {pa.string(): pa.large_string(), pa.binary(): pa.large_binary()}


def widened(table):
    """The same, with one type for values that Arrow stores in several widths."""
    types = [
        pa.decimal128(38, 2) if pa.types.is_decimal(t) else WIDEST.get(t, t)
        for t in table.schema.types
    ]
    return table.cast(pa.schema(list(zip(table.column_names, types, strict=True))))


def assert_beside(path, expected, results):
    """Checks that columns are those of a join by row, with their types."""
    found = pq.read_table(path)
    names = expected.column_names
    assert found.column_names == ["row", *names, "output"]
    assert widened(found.select(names)).equals(widened(expected))
    np.testing.assert_array_equal(np.stack(found["output"].to_pylist()), results)


@contextlib.contextmanager
def interrupted_at(row):
    """Ends runs with an error when the results of a row are about to be written."""
    real = file_writer.rows_from

    def watched(batch, start):
        if batch.stop > row:
            raise file_runs.Broken(f"at row {row}")
        return real(batch, start)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(file_writer, "rows_from", watched)
        yield


@pytest.fixture
def small(monkeypatch):
    file_runs.make_small(monkeypatch, flushes=True)


@pytest.fixture(scope="module")
def results(predictors):
    return predictors[2].predict(X, file_runs.BATCH, verbose=0)


def of_parquet(folder, data):
    data.to_parquet(folder / "in.parquet", row_group_size=7)
    return folder / "in.parquet"


def of_files(folder, data):
    """Several files, in folders that are named after a key."""
    for number, rows in enumerate(np.array_split(np.arange(NUM_ROWS), 4)):
        part = data.iloc[rows]
        place = folder / "many" / f"part={number:02d}"
        place.mkdir(parents=True)
        part.to_parquet(place / "rows.parquet")
    return folder / "many"


INPUTS = {
    "pandas": lambda folder, data: data,
    "polars": lambda folder, data: pl.from_pandas(data),
    "dict": lambda folder, data: {
        "x": X,
        **dict(data.drop(columns=["a", "b"]).items()),
    },
    "arrow": lambda folder, data: pa.Table.from_pandas(data),
    "parquet": of_parquet,
    "files": of_files,
    "columns": lambda folder, data: files.Parquet(of_parquet(folder, data), ["a", "b"]),
}


@pytest.mark.parametrize("kind", INPUTS)
def test_columns_of_every_input_keep_their_types(pair, results, kind, small, tmp_path):
    path = tmp_path / "out.parquet"
    write(pair, path, INPUTS[kind](tmp_path, frame()), keep=KEEP)
    assert_beside(path, expected_table(), results)
    joined = frame()[KEEP].reset_index(drop=True).astype({"kind": "str"})
    shown = read(path)[KEEP].astype({"count": "Int64"})
    pd.testing.assert_frame_equal(shown, joined)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("kind", ["pandas", "dict", "parquet", "arrow"])
def test_killed_runs_leave_the_same_bytes(pair, kind, suffix, small, tmp_path):
    (tmp_path / "outputs").mkdir()
    path = tmp_path / "outputs" / f"out{suffix}"
    keep = KEEP if suffix == ".parquet" else KEEP[:-1]  # without bytes
    x = INPUTS[kind](tmp_path, frame()[["a", "b", *keep]])
    expected = uninterrupted(pair, path, x, keep=keep)
    for stop in (9, 30, 40, 60):
        with interrupted_at(stop), pytest.raises(file_runs.Broken):
            write(pair, path, x, keep=keep, resume=True)
        assert 0 < file_runs.safe_rows(path) <= stop
    write(pair, path, x, keep=keep, resume=True)
    assert_same_files(path, expected)
    file_runs.assert_nothing_beside(path)


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
def test_a_run_may_be_killed_between_any_two_changes_of_the_disk(
    pair, suffix, small, monkeypatch, tmp_path
):
    (tmp_path / "outputs").mkdir()
    path = tmp_path / "outputs" / f"out{suffix}"
    x = frame()[["a", "b", "id", "price", "count"]].iloc[20:45]
    keep = ["id", "price", "count"]
    expected = uninterrupted(pair, path, x, keep=keep)
    run = functools.partial(write, pair, path, x, keep=keep)
    taken = snapshots(run, path.parent, tmp_path / "snapshots", monkeypatch)
    assert len(taken) > 12
    for folder in taken:
        write(pair, folder / path.name, x, keep=keep, resume=True)
        assert_same_files(folder / path.name, expected)


def test_other_values_or_columns_are_noticed_on_resume(pair, small, tmp_path):
    path, x = tmp_path / "out.parquet", frame()[["id", "a", "b"]]

    def resumed(message, x, **options):
        before = places.tree(tmp_path)
        with pytest.raises(ValueError, match=message):
            write(pair, path, x, resume=True, **options)
        assert places.tree(tmp_path) == before

    with interrupted_at(30), pytest.raises(file_runs.Broken):
        write(pair, path, x, keep="id")
    changed = x.assign(id=[*x["id"][:-1], "other"])
    resumed("values of the kept columns: .* before, .* now", changed, keep="id")
    resumed(r"keep: \[\['id', 'large_string'\]\] before, None now", x[["a", "b"]])
    other = x.assign(id=range(NUM_ROWS))
    resumed(r"keep: .*'int64'\]\] now", other, keep="id")
    # The same values, stored in another way.
    same = pd.concat([x.iloc[:7], x.iloc[7:]]).assign(id=x["id"].astype("category"))
    write(pair, path, same.assign(id=x["id"].copy()), keep=["id"], resume=True)
    assert read(path)["id"].tolist() == x["id"].tolist()


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("kind", ["pandas", "parquet"])
def test_shards_merge_into_the_whole(pair, kind, suffix, small, tmp_path):
    (tmp_path / "outputs").mkdir()
    path = tmp_path / "outputs" / f"out{suffix}"
    keep = ["id", "price", "when"]
    x = INPUTS[kind](tmp_path, frame()[["a", "b", *keep]])
    expected = uninterrupted(pair, path, x, keep=keep)
    for index in range(3):
        write(pair, path, x, keep=keep, shard=(index, 3))
    merge(path)
    if suffix == ".csv":
        assert_same_files(path, expected)
    pd.testing.assert_frame_equal(read(path), read(expected))
    again = places.tree(tmp_path)
    assert write(pair, path, x, keep=keep, resume=True).rows == 0
    assert places.tree(tmp_path) == again


def test_shards_that_keep_other_columns_do_not_merge(pair, small, tmp_path):
    path = tmp_path / "out.csv"
    x = frame()[["a", "b", "id", "count"]]
    for index, keep in enumerate((["id", "count"], ["count", "id"])):
        write(pair, path, x, keep=keep, shard=(index, 2))
    with pytest.raises(ValueError, match="not of the same run .*keep: .* in shard 0"):
        merge(path)


def test_the_index_is_kept_by_its_name(pair, results, tmp_path):
    x, path = frame()[["a", "b"]], tmp_path / "out.parquet"
    write(pair, path, x, keep="key")
    assert read(path)["key"].tolist() == x.index.tolist()
    write(pair, path, x.rename_axis(None), keep="index", overwrite=True)
    assert read(path)["index"].tolist() == x.index.tolist()
    levels = [x.index, pd.Index([f"u{row}" for row in range(NUM_ROWS)])]
    several = x.set_axis(pd.MultiIndex.from_arrays(levels, names=["n", "u"]))
    write(pair, path, several, keep=["u", "n"], overwrite=True)
    assert read(path).columns.tolist() == ["row", "u", "n", "output"]
    assert read(path)["u"].tolist() == [*levels[1]]
    np.testing.assert_array_equal(np.stack(read(path)["output"].to_list()), results)


@pytest.mark.parametrize("key", [2, ("id", "u")])
def test_names_that_are_not_strings_are_kept_as_text(pair, results, key, tmp_path):
    x, path = frame()[["a", "b", "flag"]], tmp_path / "out.parquet"
    pairs = pd.MultiIndex.from_tuples(["ab", "bc", ("id", "u")])
    x.columns = [0, 1, key] if key == 2 else pairs
    write(pair, path, x, keep=str(key))
    assert read(path)[str(key)].tolist() == x[key].tolist()
    np.testing.assert_array_equal(np.stack(read(path)["output"].to_list()), results)
    with pytest.raises(ValueError, match="is the name of two columns"):
        write(pair, path, pd.concat([x, x], axis=1), keep=str(key), overwrite=True)


IDS = np.array([f"r{row}" for row in range(NUM_ROWS)])
DAYS = np.datetime64("2024-02-27") + np.arange(NUM_ROWS)


def dicts():
    """Batches of dicts, in memory that the producer reuses."""
    reused = np.empty(7, "datetime64[D]")
    for start in range(0, NUM_ROWS, 7):
        some = slice(start, start + 7)
        x = X[some]
        reused[: len(x)] = DAYS[some]
        yield {"x": x, "id": IDS[some], "day": reused[: len(x)]}
        reused[:] = "NaT"


def data_set():
    entries = {"x": X, "id": IDS, "day": DAYS.astype(int)}
    return tf.data.Dataset.from_tensor_slices(entries).batch(7)


STREAMS = {
    "generator": dicts,
    "pairs": lambda: ((batch, batch["x"][:, 0]) for batch in dicts()),
    "data_set": data_set,
    "pairs_of_data_set": lambda: data_set().map(lambda x: (x, x["x"][:, 0])),
}


@pytest.mark.parametrize("suffix", [".parquet", ".csv"])
@pytest.mark.parametrize("kind", STREAMS)
def test_entries_of_streams_are_kept_and_resumed(
    pair, results, kind, suffix, small, tmp_path
):
    (tmp_path / "outputs").mkdir()
    path, make = tmp_path / "outputs" / f"out{suffix}", STREAMS[kind]
    expected = uninterrupted(pair, path, make(), keep=["id", "day"])
    for stop in (9, 30):
        with interrupted_at(stop), pytest.raises(file_runs.Broken):
            write(pair, path, make(), keep=["id", "day"], resume=True)
    write(pair, path, make(), keep=["id", "day"], resume=True)
    assert_same_files(path, expected)
    found = read(path)
    assert found["id"].tolist() == IDS.tolist()
    days = DAYS.astype(int) if "data_set" in kind else DAYS
    assert found["day"].astype(str).tolist() == list(map(str, days.astype(object)))
    if suffix == ".parquet":
        np.testing.assert_array_equal(np.stack(found["output"].to_list()), results)


@pytest.mark.parametrize(
    ("batches", "message"),
    [
        (
            [X[:3]],
            r"Batch 0 \(first row 0\): Received keep or labels \['id'\] for ndarray",
        ),
        ([{"x": X[:3]}], "Batch 0 .*: keep: there is no 'id'; received x"),
        ([{"x": X[:3], "id": [1]}], "'id' has 1 values, expected one for each of"),
        ([], "keep=.'id'. for an input without a single batch"),
        (
            [{"x": X[:3], "id": [1, 2, 3]}, {"x": X[:3], "id": ["a", "b", "c"]}],
            r"Batch 1 \(first row 3\): received columns to keep of types id: string, "
            "expected id: int64",
        ),
    ],
)
def test_streams_without_such_entries_are_refused(pair, batches, message, tmp_path):
    with pytest.raises(ValueError, match=message):
        write(pair, tmp_path / "out.csv", iter(batches), keep="id")
    assert not list(tmp_path.glob("out.csv"))


def test_labels_of_elements_and_entries_go_together(pair, tmp_path):
    batches = ((batch, (batch["x"][:, 0] > 0).astype(int)) for batch in dicts())
    path = tmp_path / "out.parquet"
    report = write(pair, path, batches, keep=["id", "day"], metrics=["accuracy"])
    assert read(path)["id"].tolist() == IDS.tolist()
    right = np.stack(read(path)["output"].to_list()).argmax(1) == (X[:, 0] > 0)
    assert report.metrics["accuracy"] == pytest.approx(right.mean())


def test_a_column_may_be_kept_and_read(predictors, tmp_path):
    x, path = frame(), tmp_path / "out.parquet"
    source = files.Parquet(of_parquet(tmp_path, x), columns=["a", "b"])
    write(predictors[1], path, source, keep=["b", "key"])
    assert read(path)["b"].tolist() == x["b"].tolist()
    assert read(path)["key"].tolist() == x.index.tolist()
    with mgpu.scope("cpu:0"):
        armed = mgpu.Predictor(file_runs.two_armed())
    inputs = {"a": X[:, :1], "b": X[:, 1:], "c": np.arange(NUM_ROWS)}
    with pytest.raises(
        ValueError, match=r"'b' has shape \(61, 1\), expected one value"
    ):
        write(armed, path, inputs, keep=["b", "c"], overwrite=True)
    inputs["b"] = X[:, 1]
    write(armed, path, inputs, keep=["b", "c"], overwrite=True)
    assert read(path)["b"].tolist() == X[:, 1].tolist()
    assert read(path)["c"].tolist() == [*range(NUM_ROWS)]


def test_folder_keys_and_steps(pair, results, tmp_path):
    folder, path = of_files(tmp_path, frame()[["a", "b", "id"]]), tmp_path / "out.csv"
    write(pair, path, folder, keep=["part", "id"], steps=5)
    found = read(path)
    sizes = [len(part) for part in np.array_split(np.arange(NUM_ROWS), 4)]
    parts = [number for number, size in enumerate(sizes) for _ in range(size)]
    assert found["part"].tolist() == parts[:40]
    assert found["id"].tolist() == frame()["id"].tolist()[:40]
    np.testing.assert_allclose(found["output_0"], results[:40, 0], rtol=1e-6)


def test_no_rows_are_a_file_with_the_columns(pair, tmp_path):
    for suffix in (".parquet", ".csv"):
        path = tmp_path / f"out{suffix}"
        write(pair, path, frame().iloc[:0][["a", "b", "id"]], keep="id")
        assert read(path).columns[:2].tolist() == ["row", "id"]


@pytest.mark.parametrize(
    ("x", "keep", "error", "message"),
    [
        ({0: X, 1: IDS}, "1", ValueError, "there is no '1'"),
        (
            X,
            "id",
            ValueError,
            "labels .'id'. for ndarray, which has no named columns",
        ),
        ([X], "id", ValueError, "for list, which has no named columns"),
        (frame(), "none", ValueError, "there is no 'none'; received id, a, when"),
        (frame(), ["id", "id"], ValueError, "'id', which is also the name of the kept"),
        (frame(), "row", ValueError, "also the name of the column 'row' of every"),
        (frame(), 3, TypeError, "keep=3. Expected the name of a column, or a list"),
        (frame(), ["id", 3], TypeError, "Expected the name of a column"),
        ({"x": X, "id": range(3)}, "id", TypeError, "'id' is range, expected an array"),
        ({"x": X, "id": [1] * 3}, "id", ValueError, r"61 rows .* keep \('id': 3\)"),
        ({"x": X, "id": [1, "a"]}, "id", ValueError, "'id' cannot be kept: .*one kind"),
    ],
)
def test_what_cannot_be_kept_is_refused_before_any_work(
    pair, x, keep, error, message, tmp_path
):
    with pytest.raises(error, match=message):
        write(pair, tmp_path / "out.parquet", x, keep=keep)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("suffix", [".npy", ".zarr"])
def test_outputs_without_columns_keep_nothing(pair, suffix, tmp_path):
    with pytest.raises(ValueError, match="has no columns. Give a .parquet or .csv"):
        write(pair, tmp_path / f"out{suffix}", frame(), keep="id")
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("suffix", "method", "name"),
    [
        (".parquet", "predict", "Output"),
        (".csv", "predict", "OUTPUT_1"),
        (".csv", "predict_classes", "output"),
        (".parquet", "predict_top_k", "classes"),
    ],
)
def test_names_of_outputs_are_refused_before_any_work(
    pair, suffix, method, name, tmp_path, monkeypatch
):
    x = frame()[["a", "b", "id"]].rename(columns={"id": name})
    k = {"k": 2} if method == "predict_top_k" else {}
    with monkeypatch.context() as patch, pytest.raises(ValueError) as info:
        patch.setattr(Run, "batches", lambda *_: pytest.fail("ran"))
        write(pair, tmp_path / f"out{suffix}", x, method=method, keep=name, **k)
    assert f"'{name}', which is also the name of the output" in str(info.value)
    assert not list(tmp_path.iterdir())


def test_names_of_outputs_that_are_not_declared_are_refused_before_writing(tmp_path):
    class Own(keras.Model):
        def call(self, x):
            return {"score": x["x"][:, :1]}

    with mgpu.scope("cpu:0"):
        predictor = mgpu.Predictor(Own())
    x = {"x": X, "Score": np.arange(NUM_ROWS)}
    with pytest.raises(ValueError, match="'Score', which is also the name of the out"):
        write(predictor, tmp_path / "out.parquet", x, method="predict", keep="Score")
    assert not list(tmp_path.iterdir())
