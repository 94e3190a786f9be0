"""CSV files: columns, dtypes that hold to the end, and what is refused."""

import gzip

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from reading_files import check_rows, one, read

from keras_mgpu_strategy.files import Csv
from keras_mgpu_strategy.formats.csv import read as csv
from keras_mgpu_strategy.formats.csv import table as csv_table
from keras_mgpu_strategy.inputs import as_source

RNG = np.random.default_rng(0)
FRAME = pd.DataFrame(
    {
        "row": np.arange(23),
        "f": RNG.normal(size=23),
        "n": RNG.integers(-9, 9, 23),
        "word": [f"00{i}" for i in range(23)],
        "flag": RNG.integers(0, 2, 23).astype(bool),
    }
)
F = FRAME["f"].to_numpy(np.float32)
N = FRAME["n"].to_numpy()
WORDS = np.array([word.encode() for word in FRAME["word"]], object)
FLAGS = FRAME["flag"].to_numpy()


@pytest.fixture
def path(tmp_path):
    FRAME.to_csv(tmp_path / "x.csv", index=False)
    return tmp_path / "x.csv"


@pytest.fixture
def small_pieces(monkeypatch):
    """Pieces of 4 rows instead of many thousand."""
    monkeypatch.setattr(csv, "_PIECE_VALUES", 4)
    monkeypatch.setattr(csv_table, "_SAMPLE_ROWS", 3)


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        (one([], name="f"), F),
        (one([1], name="n"), N.astype(np.float32)[:, None]),
        (one([], tf.int32, "n"), N),
        (one([1], tf.string, "word"), WORDS[:, None]),
        (one([], name="flag"), FLAGS.astype(np.float32)),
        (one([], tf.bool, "flag"), FLAGS),
        ([one([1], name="f"), one([], name="n")], [F[:, None], N.astype(np.float32)]),
        ({"f": one([1]), "word": one([], tf.string)}, {"f": F[:, None], "word": WORDS}),
    ],
)
def test_columns_by_the_names_of_inputs(spec, expected, path, small_pieces):
    source = Csv(path).open_rows(spec)
    assert source.num_rows is None
    check_rows(source, expected)


@pytest.mark.parametrize(
    ("columns", "spec", "expected"),
    [
        (["n", "f"], one([2]), np.stack([N, F], axis=1).astype(np.float32)),
        (["n", "f"], None, np.stack([N, F], axis=1).astype(np.float32)),
        (["n"], None, N[:, None]),
        ("n", None, N),
        ("flag", None, FLAGS),
        (None, one([4]), np.stack([F, N, range(23), FLAGS], 1).astype(np.float32)),
        ({"a": "n"}, one([]), N.astype(np.float32)),
    ],
)
def test_columns_as_asked_for(columns, spec, expected, path, small_pieces):
    check_rows(Csv(path, columns).open_rows(spec), expected)


def test_a_model_that_declares_nothing_sees_the_text_as_pandas_does(tmp_path):
    (tmp_path / "x.csv").write_text("word\nab\ncd\n")
    source = as_source(tmp_path / "x.csv")
    check_rows(source, np.array([b"ab", b"cd"], object), [(1, 0), (3, 1)])


def test_options_and_compressed_files(tmp_path):
    text = FRAME.to_csv(index=False, sep=";", header=False)
    with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
        file.write(text)
    options = {"sep": ";", "header": None, "names": list(FRAME.columns)}
    source = Csv(tmp_path / "x.csv.gz", "f", options).open_rows(one([]))
    check_rows(source, F, [(5, 3)])


def test_no_rows(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n")
    source = as_source(tmp_path / "x.csv", input_spec=one([1]))
    assert source.spec == tf.TensorSpec([None, 1], tf.float32)
    assert list(source.batches(4)) == []


def test_the_first_rows_do_not_decide(tmp_path, small_pieces):
    """A column that begins with integers is one of floats for a model of floats."""
    (tmp_path / "x.csv").write_text("a\n" + "1\n" * 20 + "0.5\n")
    expected = np.array([1] * 20 + [0.5], np.float32)
    check_rows(as_source(tmp_path / "x.csv", input_spec=one([])), expected, [(4, 3)])


@pytest.mark.parametrize(
    ("spec", "cell", "message"),
    [
        (one([]), "abc", "holds 'abc', expected a number"),
        (one([]), "", "has no value, expected one. Fill it in"),
        (one([]), "NA", "has no value, expected one"),
        (
            one([]),
            "1,5",
            "holds '1,5', .*{'decimal': ','} or {'thousands': ','} says what",
        ),
        (one([]), "1_000", "holds '1_000', expected a number"),
        (one([], tf.int64), "abc", "holds 'abc', expected a number"),
        (one([], tf.int64), "0.5", "holds 0.5 .*an integer that int64"),
        (one([], tf.int64), "9" * 20, "holds 9{20}, expected an integer of 64 bits"),
        (one([], tf.uint8), "256", "holds 256 .*an integer that uint8 holds"),
        (one([], tf.bool), "2", "holds 2 .*, expected True or False"),
        (one([], tf.string), "", "has no value.*{'keep_default_na': False}"),
        (None, "0.5", "holds 0.5 .*, expected an integer"),
    ],
)
def test_values_that_do_not_fit(spec, cell, message, tmp_path, small_pieces):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "1,2\n" * 20 + f'"{cell}",2\n' + "1,2\n")
    source = Csv(path, "a").open_rows(spec)
    batches = source.batches(4)
    for _ in range(5):
        next(batches)
    with pytest.raises(ValueError, match=f"{path}, column 'a', row 20 {message}"):
        next(batches)


def test_an_unclosed_quote_and_a_row_that_is_too_long(tmp_path, small_pieces):
    path = tmp_path / "x.csv"
    path.write_text("a,b\n" + "1,2\n" * 20 + '"1,2\n')
    with pytest.raises(ValueError, match=f"{path}.*(EOF|no value|expected a number)"):
        read(Csv(path, "a").open_rows(one([])), 4)
    path.write_text("a,b\n" + "1,2\n" * 20 + "1,2,3,4\n")
    message = f"{path} cannot be read as a CSV file: ParserError: .*line 22, saw 4"
    with pytest.raises(ValueError, match=message):
        read(Csv(path, "a").open_rows(one([])), 4)


@pytest.mark.parametrize(
    "content", [b"", b"a\n1\n\xff\xfe\xfa\n", bytes(range(256)) * 9, b"\x1f\x8b\x08"]
)
def test_what_is_not_csv(content, tmp_path):
    path = tmp_path / "x.csv"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=str(path)):
        read(Csv(path).open_rows(one([])), 4)


def test_columns_that_do_not_fit(path):
    with pytest.raises(ValueError, match="'a', and 4 columns of numbers.*expected 2"):
        Csv(path).open_rows(one([2]))
    with pytest.raises(ValueError, match="there is no 'c'; received row, f, n, word"):
        Csv(path, "c").open_rows(one([2]))
    with pytest.raises(ValueError, match=r"lacks columns for the model inputs \['b'\]"):
        Csv(path).open_rows([one([], name="b"), one([], name="f")])


@pytest.mark.parametrize("options", [{"sep": None}, {"sep": " *, *"}, {}])
def test_the_other_engine_of_pandas(options, path, small_pieces):
    source = Csv(path, "f", {"engine": "python", **options}).open_rows(one([]))
    check_rows(source, F, [(5, 3)])


def test_the_only_column_of_text(tmp_path):
    (tmp_path / "x.csv").write_text("n,word\n1,ab\n2,NULL \n")
    source = as_source(tmp_path / "x.csv", input_spec=one([], tf.string))
    check_rows(source, np.array([b"ab", b"NULL "], object), [(1, 0), (3, 1)])


def test_the_rows_before_a_bad_one_come_first(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,1\n2,2\n3,x\ny,4\n")
    batches = Csv(tmp_path / "x.csv", ["a", "b"]).open_rows(one([2])).batches(1)
    assert [next(batches).start, next(batches).start] == [0, 1]
    with pytest.raises(ValueError, match="column 'b', row 2 holds 'x'"):
        next(batches)


@pytest.mark.parametrize("name", ["chunksize", "usecols", "index_col", "nrows"])
def test_options_that_are_already_set(name, path):
    for value in (0, 1):
        message = f"read_options with '{name}', which are set"
        with pytest.raises(ValueError, match=message):
            Csv(path, read_options={name: value}).open_rows(one([]))


def test_options_that_are_not_a_dict(path):
    with pytest.raises(TypeError, match="read_options='sep=;', expected a dict of arg"):
        Csv(path, read_options="sep=;").open_rows(one([]))  # pyright: ignore


def test_paths_that_do_not_fit(tmp_path):
    with pytest.raises(FileNotFoundError, match="There is no file .*x.csv"):
        Csv(tmp_path / "x.csv").open_rows(one([]))
    with pytest.raises(ValueError, match="is a folder. Expected one CSV file"):
        Csv(tmp_path).open_rows(one([]))


def test_a_start_past_the_end(path):
    with pytest.raises(ValueError, match="Received start=24, but .*x.csv has only 23"):
        read(Csv(path, "f").open_rows(one([])), 4, 24)
