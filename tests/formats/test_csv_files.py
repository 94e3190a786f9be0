"""What `.csv` files hold."""

import csv

import duckdb
import ml_dtypes
import numpy as np
import pandas as pd
import polars as pl
import pytest

from keras_mgpu_strategy.formats.csv.write import CsvFormat
from tests.formats import stored


def table_of(path):
    with open(path, newline="", encoding="utf-8") as file:
        return list(csv.reader(file))


def test_rows_and_header(tmp_path):
    outputs = {
        "score": np.array([[0.1, 1e-7], [1 / 3, np.nan], [1e20, -np.inf]], np.float32),
        "id": np.array([1, -2, 3]),
        "is": np.array([True, False, True]),
        "label": np.array(["a,b", 'say "x"', "ö"]),
    }
    layout = stored.layout_of(outputs, has_names=True)
    stored.written("csv", tmp_path / "out", stored.Results(outputs, layout))
    assert table_of(tmp_path / "out") == [
        ["row", "file", "id", "is", "label", "score_0", "score_1"],
        ["0", 'folder/"0", ä.png', "1", "true", "a,b", "0.1", "1e-07"],
        ["1", 'folder/"1", ä.png', "-2", "false", 'say "x"', "0.33333334", "nan"],
        ["2", 'folder/"2", ä.png', "3", "true", "ö", "1e+20", "-inf"],
    ]
    assert (tmp_path / "out").read_bytes().count(b"\r\n") == 4


@pytest.mark.parametrize("dtype", [np.float16, np.float32, ml_dtypes.bfloat16])
def test_every_float_reads_back_exactly(dtype, tmp_path):
    bits = np.random.default_rng(0).integers(0, 2**32, 20_000, np.uint32)
    with np.errstate(over="ignore", invalid="ignore"):
        outputs = bits.view(np.float32).astype(dtype)
    is_nan = outputs != outputs
    outputs[is_nan] = np.nan  # casting some of them would warn
    what = stored.Results(outputs, stored.layout_of(outputs))
    stored.written("csv", tmp_path / "out", what)
    texts = [line[1] for line in table_of(tmp_path / "out")[1:]]
    with np.errstate(over="ignore"):
        read = np.array(texts).astype(np.float64).astype(np.float32).astype(dtype)
    np.testing.assert_array_equal(read != read, is_nan)
    assert read[~is_nan].tobytes() == outputs[~is_nan].tobytes()


def test_doubles_and_large_integers_read_back_exactly(tmp_path):
    bits = stored.some((20_000,), np.int64)
    outputs = {"a": bits.view(np.float64), "b": bits, "c": bits.view(np.uint64)}
    what = stored.Results(outputs, stored.layout_of(outputs))
    stored.written("csv", tmp_path / "out", what)
    texts = np.array(table_of(tmp_path / "out")[1:]).T
    for column, (values, read) in enumerate(
        zip(outputs.values(), (float, int, int), strict=True), start=1
    ):
        np.testing.assert_array_equal([read(text) for text in texts[column]], values)


def test_other_tools_read_it(tmp_path):
    what = stored.results(stored.many, 30, has_names=True, missing=(4, 29))
    path = tmp_path / "out.csv"
    stored.written("csv", path, what)
    frames = [
        pd.read_csv(path),
        pl.read_csv(path, infer_schema_length=None).to_pandas(),
        duckdb.read_csv(str(path)).df(),
    ]
    for frame in frames:
        names = ["row", "file", "id", "scores_0", "scores_1", "scores_2"]
        assert list(frame.columns) == names
        assert frame["file"].tolist() == stored.names_of(0, 30)
        assert frame["id"].isna().to_numpy().nonzero()[0].tolist() == [4, 29]
        scores = frame[names[3:]].to_numpy(np.float64).astype(np.float32)
        np.testing.assert_array_equal(scores, what.outputs["scores"])


def test_names_of_columns_do_not_collide(tmp_path):
    outputs = {"a": np.zeros((1, 2)), "a_1": np.ones(1), "zero": np.zeros((1, 0))}
    what = stored.Results(outputs, stored.layout_of(outputs))
    stored.written("csv", tmp_path / "out", what)
    assert table_of(tmp_path / "out") == [
        ["row", "a_0", "a_1", "a_1_2"],
        ["0", "0.0", "0.0", "1.0"],
    ]


@pytest.mark.parametrize(
    ("outputs", "message"),
    [
        (np.zeros((2, 3, 4)), r"'output', whose rows have shape \(3, 4\)"),
        (np.zeros((2, 1001)), "would have 1001 columns, expected at most 1000"),
        ([np.zeros((2, 600))] * 2, "would have 1200 columns"),
    ],
)
def test_outputs_that_fit_no_table_are_refused(outputs, message):
    with pytest.raises(ValueError, match=message):
        CsvFormat().check(stored.layout_of(outputs))


def test_half_a_line_after_the_mark_is_dropped(tmp_path):
    what = stored.results(stored.one, 30)
    mark = stored.begun("csv", tmp_path / "out", what, 20)
    with open(tmp_path / "out", "a") as file:
        file.write("20,0.5,0.")
    stored.assert_resumes("csv", tmp_path / "out", what, mark)


DAMAGES = [
    (lambda content: content[:-3], "bytes, expected at least"),
    (lambda content: b"x" + content[1:], "does not begin with the names of these"),
    (lambda content: content[:-1] + b"x", "has no end of a line at byte"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_file_cannot_be_continued(damage, message, tmp_path):
    path, what = tmp_path / "out", stored.results(stored.one, 30)
    mark = stored.begun("csv", path, what, 20)
    path.write_bytes(damage(path.read_bytes()))
    stored.assert_not_resumed("csv", path, what, mark, message)


def test_names_that_are_not_text_are_spelled_out(tmp_path):
    what = stored.results(stored.one, 1, has_names=True)
    sink = CsvFormat().create(tmp_path / "out", what.layout)
    marks = stored.RowMarks(names=["caf\udce9.png"])
    sink.write(stored.HostBatch(0, what.outputs, marks))
    sink.finish()
    assert table_of(tmp_path / "out")[1][1] == "caf\\udce9.png"


def test_strings_read_back_exactly(tmp_path):
    path, what = tmp_path / "out.csv", stored.results(stored.texts, 200)
    stored.written("csv", path, what)
    names = ["label", "words_0", "words_1"]
    values = [what.outputs["label"], *what.outputs["words"].T]
    expected = [[text.decode() for text in column] for column in values]
    lines = table_of(path)
    assert lines[0] == ["row", *names]
    assert [list(column) for column in zip(*lines[1:], strict=True)][1:] == expected
    frame = pd.read_csv(path, keep_default_na=False)
    assert [frame[name].tolist() for name in names] == expected


def test_an_output_without_columns_leaves_the_rows(tmp_path):
    outputs = {"none": np.zeros((3, 0), np.float32)}
    what = stored.Results(outputs, stored.layout_of(outputs, stop_row=3))
    mark = stored.begun("csv", tmp_path / "out", what, 2)
    stored.assert_resumes("csv", tmp_path / "out", what, mark)
    assert table_of(tmp_path / "out") == [["row"], ["0"], ["1"], ["2"]]
