"""CSV files: which names belong to which columns, and what separates them."""

import gzip

import numpy as np
import pandas as pd
import pytest
import tensorflow as tf
from reading_files import check_rows, one, read

from keras_mgpu_strategy.files import Csv
from keras_mgpu_strategy.formats.csv import read as csv
from keras_mgpu_strategy.inputs import as_source

AB = np.array([[1, 4], [2, 5], [3, 6]], np.float32)
TWO = one([2], name="x")


def rows(text, columns=None, spec=TWO, *, folder, **options):
    (folder / "x.csv").write_bytes(text if isinstance(text, bytes) else text.encode())
    source = Csv(folder / "x.csv", columns, options).open_rows(spec)
    return read(source, 2)


@pytest.mark.parametrize(
    ("text", "options"),
    [
        ("a,b,c\n1,4,7,\n2,5,8,\n3,6,9,\n", {}),
        ("a,b,c\n1,4,7,\n2,5,8,\n3,6,9,\n", {"index_col": False}),
        ("a,b,c\n1,4,7,\n2,5,8,\n3,6,9,\n", {"engine": "python"}),
        ("a,b,c\n1,4,7,\n2,5,8,\n3,6,9,\n", {"sep": None, "engine": "python"}),
        ("a,b\n0,1,4\n1,2,5\n2,3,6\n", {"engine": "python"}),
        ("a,b,c\n1,4,7,\n2,5,8\n3,6,9\n", {}),
        ("a,b,c,\n1,4,7,\n2,5,8,\n3,6,9,\n", {}),
        ("a;b;c\n1;4;7;\n2;5;8;\n3;6;9;\n", {}),
        ("a,b\n0,1,4\n1,2,5\n2,3,6\n", {}),  # as R writes row names
        ('a,b\n"x",1,4\n"y",2,5\n"z",3,6\n', {}),
        ("a,b,c\nx,1,4,NA\ny,2,5,TRUE\nz,3,6,FALSE\n", {}),
        ("a\tb\tt\nx\t1\t4\tu, v\ny\t2\t5\tw\nz\t3\t6\tw\n", {}),
        (",a,b\n0,1,4\n1,2,5\n2,3,6\n", {}),  # as pandas writes an index
        ("a, b\n1, 4\n2, 5\n3, 6\n", {}),
        (" a ,\tb\n1,4\n2,5\n3,6\n", {}),
        ("a,b\n\n1,4\n  \n2,5\n3,6\n\n", {}),
        ("a\tb\n1\t4\n2\t5\n3\t6\n", {}),
        ("a;b\n1;4\n2,5\n3;6\n", {"sep": "[;,]"}),  # in pandas' slow engine
        ("a|b\r\n1|4\r\n2|5\r\n3|6\r\n", {}),
        ("﻿a;b\n1;4\n2;5\n3;6\n", {}),
        ("# made by hand\na,b\n1,4\n2,5\n3,6\n", {"comment": "#"}),
        ("made by hand\n\na,b\n1,4\n2,5\n3,6\n", {"header": 1}),
        ("made,by,hand\na,b\n1,4,\n2,5,\n3,6,\n", {"skiprows": 1}),
        ("c,d\n1,4\n2,5\n3,6\n", {"names": ["a", "b"], "header": 0}),
        ("c,d\n1,4,\n2,5,\n3,6,\n", {"names": ["a", "b"], "header": 0}),
        ("c,d,\n1,4,\n2,5,\n3,6,\n", {"names": ["a", "b"], "header": 0}),
        ("c,d\n0,1,4\n1,2,5\n2,3,6\n", {"names": ["i", "a", "b"], "header": 0}),
        ("1,4\n2,5\n3,6\n", {"names": ["a", "b"]}),
        ("1,4,\n2,5,\n3,6,\n", {"names": ["a", "b"]}),
        ("1,4,7\n2,5,8\n3,6,9\n", {"names": ["a", "b", "c", "d"]}),
    ],
)
def test_names_stay_with_their_columns(text, options, tmp_path, monkeypatch):
    monkeypatch.setattr(csv, "_PIECE_VALUES", 2)
    columns = ["a", "b"]
    np.testing.assert_array_equal(rows(text, columns, folder=tmp_path, **options), AB)


@pytest.mark.parametrize(
    "text",
    [
        "a,b\n1,4,\n2,5,\n3,6,\n",
        "a,b,\n1,4,\n2,5,\n3,6,\n",
        ",a,b\n7,1,4\n8,2,5\n9,3,6\n",
        "a,b\n7,1,4\n8,2,5\n9,3,6\n",
    ],
)
def test_columns_without_a_name_are_not_taken_unasked(text, tmp_path):
    np.testing.assert_array_equal(rows(text, folder=tmp_path), AB)
    message = r"2 columns of numbers, expected 3: received a, b[;.]"
    with pytest.raises(ValueError, match=message):
        rows(text, spec=one([3], name="x"), folder=tmp_path)


def test_an_index_that_pandas_wrote_is_taken_by_its_name(tmp_path):
    text = ",a\n1,4\n2,5\n3,6\n"
    found = rows(text, ["Unnamed: 0", "a"], folder=tmp_path)
    np.testing.assert_array_equal(found, AB)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (
            "a,b\n1,4,\n2,5,8\n3,6,\n",
            "row 1 has '8.0' after the last column, 'b'",
        ),
        ("a,b\n1,4\n2,5,8\n", "Expected 2 fields in line 3, saw 3"),
        (
            "a,b\n1,4,5,6\n",
            "Expected 3 fields in line 2, saw 4. Repair the line: q",
        ),
        ("a,b\n1,4\n2,5,\n", "Expected 2 fields in line 3, saw 3. Repair the line"),
        ("a,b\n1,4\n'2,\"5\n", "EOF inside string .*close quotes"),
        ("t,b\nhello, you,4\n", "but row 0 has more cells. Quote text that holds"),
        ("a,t\n1,hello,you\n", "but row 0 has more cells. Quote text that holds"),
        ("a,b\n1,4\n2\n", "column 'b', row 1 has no value"),
        ("a,b,a\n1,4,7\n", "several columns named 'a'. Name them: read_options="),
        ("a, a\n1,4\n", "several columns named 'a'"),
    ],
)
def test_cells_that_do_not_fit_the_names(text, message, tmp_path):
    with pytest.raises(ValueError, match=f"x.csv.*{message}"):
        rows(text, ["a", "b"], folder=tmp_path)


def test_the_rows_before_one_that_is_too_long_come_first(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,4,\n2,5,\n3,6,9\n")
    batches = Csv(tmp_path / "x.csv").open_rows(TWO).batches(1)
    assert [next(batches).start, next(batches).start] == [0, 1]
    with pytest.raises(ValueError, match="x.csv, row 2 has '9.0' after the last colu"):
        next(batches)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"names": ["a"], "header": 0},
            r"received 1 names .*\(a\) for rows of 3",
        ),
        ({"names": ["a", "b"], "header": 0}, "received 2 names .*for rows of 3 cells"),
        ({"names": ["a", "b"]}, "received 2 names .*for rows of 3 cells. Name all"),
        ({"names": ["a", "b", "a"], "header": 0}, "Duplicate names are not allowed"),
        ({"header": [0, 1]}, r"header=\[0, 1\], expected the index of the one line"),
    ],
)
def test_names_that_do_not_fit(options, message, tmp_path):
    text = "a,b,c\n1,4,7\n2,5,8\n"
    with pytest.raises(ValueError, match=message):
        rows(text, ["a", "b"], folder=tmp_path, **options)


def test_row_names_if_the_user_says_that_there_are_none(tmp_path):
    message = "names 2 columns .a, b., but row 0 has more cells. Quote text"
    with pytest.raises(ValueError, match=message):
        rows("a,b\n0,1,4\n", folder=tmp_path, index_col=False)
    options = {"header": None, "skiprows": 1, "names": ["i", "a", "b"]}
    found = rows("a,b\n0,1,4\n", ["a", "b"], folder=tmp_path, **options)
    np.testing.assert_array_equal(found, AB[:1])


@pytest.mark.parametrize(
    "header", ["1,2", "1.5,-2e3", "0,1", "label,1", "a,.5", '"1","2"', "00060,x"]
)
def test_a_first_line_with_numbers_may_be_a_row(header, tmp_path):
    text, two = f"{header}\n1,4\n2,5\n3,6\n", one([2], name="y")
    message = r"x.csv has '.*in its first line, which may be a row or names of columns"
    with pytest.raises(ValueError, match=message):
        rows(text, spec=two, folder=tmp_path)
    np.testing.assert_array_equal(rows(text, None, two, folder=tmp_path, header=0), AB)


def test_a_file_without_names(tmp_path):
    text = "1,7,4\n2,8,5\n3,9,6\n"
    found = rows(text, ["0", "2"], folder=tmp_path, header=None)
    np.testing.assert_array_equal(found, AB)
    found = rows(text, spec=one([3]), folder=tmp_path, header=None)
    np.testing.assert_array_equal(found, np.insert(AB, 1, [7, 8, 9], axis=1))


def test_repeated_text_may_be_a_row(tmp_path):
    text, words = "cat\ndog\ncat\n", one([], tf.string, "kind")
    with pytest.raises(ValueError, match="has 'cat' in its first line, which may be"):
        rows(text, spec=words, folder=tmp_path)
    found = rows(text, spec=words, folder=tmp_path, header=None)
    assert found.tolist() == [b"cat", b"dog", b"cat"]
    named = one([], tf.string, "cat")
    assert rows(text, spec=named, folder=tmp_path).tolist() == [b"dog", b"cat"]
    assert rows(text, "cat", spec=words, folder=tmp_path).tolist() == [b"dog", b"cat"]


def test_a_blank_line_if_a_row_is_one_cell(tmp_path):
    text = "a\n1\n\n3\n"
    with pytest.raises(ValueError, match="column 'a', row 1 has no value"):
        rows(text, spec=one([]), folder=tmp_path)
    found = rows(text, spec=one([]), folder=tmp_path, skip_blank_lines=True)
    np.testing.assert_array_equal(found, [1, 3])
    found = rows("\n\na\n1\n3\n", spec=one([]), folder=tmp_path)
    np.testing.assert_array_equal(found, [1, 3])


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("a;b\nx;y\nz\n", ["x;y", "z"]),
        ('"a;b"\nx\ny\n', ["x", "y"]),
        ("a|b\nx\ny\n", ["x", "y"]),
    ],
)
def test_a_semicolon_that_separates_nothing(text, words, tmp_path):
    options = {"sep": ","} if ";y" in text else {}
    found = rows(text, spec=one([], tf.string), folder=tmp_path, **options)
    assert found.tolist() == [word.encode() for word in words]


def test_semicolons_with_decimal_commas(tmp_path):
    text = "a;b\n1,5;2\n1000,25;-3\n"
    with pytest.raises(ValueError, match=r"received a \(text\), b. Pass columns="):
        rows(text, folder=tmp_path)
    with pytest.raises(ValueError, match=r"columns a \(text\), b are stacked"):
        rows(text, ["a", "b"], folder=tmp_path)
    with pytest.raises(ValueError, match="row 0 holds '1,5', .*{'decimal': ','}"):
        rows(text, spec=one([]), folder=tmp_path)
    found = rows(text, folder=tmp_path, decimal=",")
    np.testing.assert_array_equal(found, [[1.5, 2], [1000.25, -3]])


def test_encodings(tmp_path):
    expected = np.array([[1.5, 2]], np.float32)
    text = "größe\tb\r\n1.5\t2\r\n"
    for encoding in ("latin-1", "utf-16"):
        with pytest.raises(ValueError, match=r"\w\. If it is not UTF-8, pass read"):
            rows(text.encode(encoding), folder=tmp_path)
        found = rows(text.encode(encoding), folder=tmp_path, encoding=encoding)
        np.testing.assert_array_equal(found, expected)
    late = "a,b\n" + "1,4\n" * 300_000 + "é,5\n"
    with pytest.raises(ValueError, match=r"\w\. If it is not UTF-8, pass read"):
        rows(late.encode("latin-1"), folder=tmp_path)


def test_a_trailing_comma_in_a_compressed_file(tmp_path):
    with gzip.open(tmp_path / "x.csv.gz", "wt") as file:
        file.write("a,b\n1,4,\n2,5,\n3,6,\n")
    check_rows(as_source(tmp_path / "x.csv.gz", input_spec=TWO), AB, [(2, 0), (2, 1)])


@pytest.mark.parametrize("compression", ["gzip", "zip", "xz"])
def test_the_content_decides_how_a_file_is_compressed(compression, tmp_path):
    pd.DataFrame(AB, columns=["a", "b"]).to_csv(
        tmp_path / "x.csv", index=False, compression=compression
    )
    check_rows(as_source(tmp_path / "x.csv", input_spec=TWO), AB, [(2, 0), (2, 1)])


def test_floats_are_read_exactly(tmp_path):
    values = np.random.default_rng(0).normal(size=999)
    values *= 10.0 ** np.linspace(-300, 300, 999)
    pd.DataFrame({"a": values}).to_csv(tmp_path / "x.csv", index=False)
    source = as_source(tmp_path / "x.csv", input_spec=one([], tf.float64))
    check_rows(source, values, [(64, 0)])


def test_integers_are_read_exactly(tmp_path):
    big = [2**53 + 1, 2**62 + 1, -5]
    text = f"a\n{big[0]}\n{big[1]}\n{big[2]}\n"
    found = rows(text, spec=one([], tf.int64), folder=tmp_path)
    assert found.tolist() == big and found.dtype == np.int64
    text = f"a\n{2**64 - 1}\n3\n"
    found = rows(text, spec=one([], tf.uint64), folder=tmp_path)
    assert found.tolist() == [2**64 - 1, 3] and found.dtype == np.uint64
    text = f"a,b\n3.0,1\n{-(2**31)},2\nTrue,3\n"
    found = rows(text, "a", spec=one([], tf.int32), folder=tmp_path)
    assert found.tolist() == [3, -(2**31), 1] and found.dtype == np.int32


def test_missing_values_as_nan(tmp_path):
    (tmp_path / "x.csv").write_text("a,b\n1,4\n,5\nNA,6\n")
    floats = Csv(tmp_path / "x.csv", missing_as_nan=True)
    expected = np.array([[1, 4], [np.nan, 5], [np.nan, 6]], np.float32)
    check_rows(floats.open_rows(TWO), expected, [(2, 0)])
    assert floats.open_rows(TWO).identity != Csv(floats.path).open_rows(TWO).identity
    with pytest.raises(ValueError, match="row 1 has no value.*missing_as_nan=True"):
        read(Csv(floats.path).open_rows(TWO), 2)
    for dtype in (tf.int64, tf.bool, tf.string):
        whole = Csv(floats.path, "a", missing_as_nan=True)
        with pytest.raises(ValueError, match="row 1 has no value, expected one. Fill"):
            read(whole.open_rows(one([], dtype)), 2)


def test_numbers_next_to_words_for_nan(tmp_path):
    text = "a,b\n1,4\nnan,5\n"
    found = rows(text, folder=tmp_path, keep_default_na=False)
    np.testing.assert_array_equal(found, [[1, 4], [np.nan, 5]])
    with pytest.raises(ValueError, match="row 1 holds nan, expected an integer"):
        rows(text, "a", one([], tf.int64), folder=tmp_path, keep_default_na=False)


def test_numbers_that_pandas_leaves_as_text(tmp_path):
    """Thousands and decimals mean the same in a piece without a common type."""
    text = 'a;b\n"1.000,5";1\nTrue;2\n-2,25;x\n'
    options = {"sep": ";", "thousands": ".", "decimal": ","}
    found = rows(text, "a", one([]), folder=tmp_path, **options)
    np.testing.assert_array_equal(found, [1000.5, 1, -2.25])
    options = {"sep": ";", "decimal": ","}
    for cell in ("1.000", "1,0,0", "1_0"):
        with pytest.raises(ValueError, match=f"row 0 holds '{cell}', expected a n"):
            rows(f"a;b\n{cell};1\n2,5;2\n", "a", one([]), folder=tmp_path, **options)


def test_no_rows_of_several_columns(tmp_path):
    found = rows("a,b\n", folder=tmp_path)
    assert found.shape == (0, 2) and found.dtype == np.float32
    found = rows("a,b\n", spec=one([2], tf.string, "x"), folder=tmp_path)
    assert found.shape == (0, 2)


def test_converters_for_a_column_of_text(tmp_path, recwarn):
    text = "a,b\nx,1\ny,2\n"
    options = {"converters": {"a": str.upper}}
    found = rows(text, "a", one([], tf.string), folder=tmp_path, **options)
    assert found.tolist() == [b"X", b"Y"]
    assert not recwarn.list
