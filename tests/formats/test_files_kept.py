"""Columns of files that are kept: their types, and values that do not fit these."""

import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keras_mgpu_strategy import files
from keras_mgpu_strategy.formats.csv import read as csv_read


def kept(source, batch_size=4, start=0):
    """All kept rows, a batch at a time, in one table."""
    parts = []
    for batch in source.batches(batch_size, start):
        parts.append(source.marks(batch.start, batch.start + batch.num_rows).kept)
    return pa.concat_tables(parts).combine_chunks()


def csv_source(tmp_path, cells, header="a,c", **options):
    path = tmp_path / "in.csv"
    lines = [f"{number},{cell}" for number, cell in enumerate(cells)]
    path.write_text("\n".join([header, *lines]) + "\n", encoding="utf-8")
    return files.Csv(path, columns="a", read_options=options).open_rows(None, ["c"])


CELLS = {
    "integers": (["1", "", "-20", "0"], pa.int64(), [1, None, -20, 0]),
    "zeros_before": (["1", "007"], pa.string(), ["1", "007"]),
    "plus": (["1", "+2"], pa.string(), ["1", "+2"]),
    "minus_zero": (["0", "-0"], pa.float64(), [0.0, -0.0]),
    "largest": ([f"{2**63 - 1}", f"{-(2**63)}"], pa.int64(), [2**63 - 1, -(2**63)]),
    "too_large": ([f"{2**63}", "1"], pa.string(), [f"{2**63}", "1"]),
    "long_in_floats": (["0.5", "9007199254740993"], pa.string(), None),
    "floats": (["1", "2.50", "1e-3"], pa.float64(), [1, 2.5, 0.001]),
    "exact": (["0.1", "5e-324", "1.7976931348623157e308"], pa.float64(), None),
    "bools": (["true", "", "False"], pa.bool_(), [True, None, False]),
    "yes": (["yes", "no"], pa.string(), ["yes", "no"]),
    "spaces": ([" 1", "2"], pa.string(), [" 1", "2"]),
    "text": (['"a, ""b"""', "\u00e4"], pa.string(), ['a, "b"', "\u00e4"]),
    "dates": (["2024-01-02", "NA"], pa.string(), ["2024-01-02", None]),
    "nothing": (["", ""], pa.string(), [None, None]),
}


@pytest.mark.parametrize("case", CELLS)
def test_cells_of_csv_have_the_type_that_they_are_written_in(case, tmp_path):
    cells, type_, expected = CELLS[case]
    if expected is None:
        expected = cells if type_ == pa.string() else [float(cell) for cell in cells]
    source = csv_source(tmp_path, cells)
    assert source.kept_schema == pa.schema([("c", type_)])
    found = kept(source, batch_size=1)["c"].to_pylist()
    assert list(map(repr, found)) == [
        repr(pa.scalar(x, type_).as_py()) for x in expected
    ]


OPTIONS = {
    "comma": ({"sep": ";", "decimal": ","}, ["0;1,5"], pa.float64(), [1.5]),
    "point": ({"sep": ";", "decimal": ","}, ["0;1.5"], pa.string(), ["1.5"]),
    "thousands": ({"sep": ";", "thousands": "."}, ["0;1.500"], pa.int64(), [1500]),
    "text": ({"dtype": {"c": str}}, ["0,12"], pa.string(), ["12"]),
    "narrow": ({"dtype": {"c": "int8"}}, ["0,12"], pa.int8(), [12]),
    "nullable": ({"dtype": {"c": "Int16"}}, ["0,", "1,3"], pa.int16(), [None, 3]),
    "converter": ({"converters": {"c": len}}, ["0,abc"], pa.int64(), [3]),
    "words": ({"keep_default_na": False}, ["0,NA", "1,"], pa.string(), ["NA", ""]),
    "date": (
        {"parse_dates": ["c"], "date_format": "%d.%m.%Y"},
        ["0,03.02.2024"],
        None,
        [datetime.datetime(2024, 2, 3)],
    ),
}


@pytest.mark.parametrize("case", OPTIONS)
def test_options_say_what_cells_of_csv_are(case, tmp_path):
    options, lines, type_, expected = OPTIONS[case]
    path = tmp_path / "in.csv"
    path.write_text("\n".join([f"a{options.get('sep', ',')}c", *lines]))
    source = files.Csv(path, "a", read_options=options).open_rows(None, ["c"])
    assert type_ is None or source.kept_schema.field("c").type == type_
    assert kept(source)["c"].to_pylist() == expected


@pytest.mark.parametrize(
    ("first", "bad", "type_"),
    [("1", "x", "int64"), ("1", "2.5", "int64"), ("1", f"{2**63}", "int64")]
    + [("0.5", "9" * 16, "double"), ("true", "1", "bool")],
)
def test_a_later_cell_of_another_kind_is_an_error(
    first, bad, type_, tmp_path, monkeypatch
):
    monkeypatch.setattr(csv_read, "_PIECE_VALUES", 20)
    source = csv_source(tmp_path, [first] * 1100 + [bad, first])
    message = (
        rf"in.csv, column 'c', row 1100 holds '{bad}', which cannot be kept as {type_}"
        r", as the first rows are. .*read_options=\{'dtype': \{'c': 'str'\}\}"
    )
    batches, num_rows = source.batches(1000), 0
    with pytest.raises(ValueError, match=message):
        for batch in batches:
            num_rows += batch.num_rows
    assert num_rows == 1100
    text = csv_source(tmp_path, [first] * 1100 + [bad], dtype={"c": "str"})
    assert kept(text, 500)["c"].to_pylist() == [first] * 1100 + [bad]


def test_a_csv_column_may_be_read_and_kept(tmp_path):
    path = tmp_path / "in.csv"
    path.write_text("a,b,id\n1.5,2,007\n2.5,3,008\n")
    source = files.Csv(path, ["a", "b"]).open_rows(None, ["b", "id"])
    (batch,) = source.batches(2)
    np.testing.assert_array_equal(batch.inputs, [[1.5, 2], [2.5, 3]])
    table = source.marks(0, 2).kept
    assert table.to_pydict() == {"b": [2, 3], "id": ["007", "008"]}


def test_kept_columns_are_not_taken_for_features(tmp_path):
    frame = pd.DataFrame({"a": [1.0, 2], "b": [3.0, 4], "id": [7, 8]})
    frame.to_csv(tmp_path / "in.csv", index=False)
    frame.to_parquet(tmp_path / "in.parquet")
    for kind, suffix in ((files.Csv, "csv"), (files.Parquet, "parquet")):
        opened = kind(tmp_path / f"in.{suffix}")
        source = opened.open_rows(stub((None, 2)), ["id"])
        (batch,) = source.batches(2)
        np.testing.assert_array_equal(batch.inputs, [[1, 3], [2, 4]])
        source = opened.open_rows(stub((None, 1), "id"), ["id"])
        (batch,) = source.batches(2)
        np.testing.assert_array_equal(batch.inputs, [[7], [8]])
        assert source.marks(0, 2).kept["id"].to_pylist() == [7, 8]
        with pytest.raises(ValueError, match="keep or labels: there is no 'no'; rec"):
            opened.open_rows(stub((None, 2)), ["no"])


def stub(shape, name="x"):
    import tensorflow as tf

    return tf.TensorSpec(shape, tf.float32, name)


def parquet_files(tmp_path, *columns):
    for number, column in enumerate(columns):
        table = pa.table({"a": np.arange(len(column)), "c": column})
        pq.write_table(table, tmp_path / f"{number}.parquet")
    return files.Parquet(tmp_path, columns="a").open_rows(None, ["c"])


TEXTS = pa.array(["b", "a", "b"])
CODED = TEXTS.dictionary_encode()
SEVERAL = {
    "dictionaries": (
        [TEXTS.dictionary_encode(), TEXTS[1:].dictionary_encode()],
        pa.string(),
    ),
    "some": ([TEXTS, CODED], pa.string()),
    "long": ([TEXTS, TEXTS.cast(pa.large_string())], pa.large_string()),
    "nulls": ([pa.nulls(2), TEXTS], pa.string()),
    "integers": ([pa.array([1], pa.int8()), pa.array([2**40])], pa.int64()),
    "floats": ([pa.array([0.5], pa.float32()), pa.array([0.1])], pa.float64()),
    "lists": ([pa.array([[1], None])] * 2, pa.list_(pa.int64())),
    "structs": ([pa.array([{"x": 1, "y": "z"}, None])] * 2, None),
}


@pytest.mark.parametrize("case", SEVERAL)
def test_columns_of_several_files_have_one_type(case, tmp_path):
    columns, type_ = SEVERAL[case]
    source = parquet_files(tmp_path, *columns)
    assert source.kept_schema.field("c").type == (type_ or columns[0].type)
    for size in (1, 2, 5):
        found = kept(source, size)["c"].to_pylist()
        assert found == [value for column in columns for value in column.to_pylist()]
    assert kept(source, 2, start=1)["c"].to_pylist() == found[1:]


@pytest.mark.parametrize(
    ("first", "second"),
    [
        (pa.array([1]), pa.array([0.5])),
        (pa.array([1], pa.uint64()), pa.array([-1], pa.int64())),
    ],
    ids=["fraction", "sign"],
)
def test_types_of_several_files_that_would_change_values_are_refused(
    first, second, tmp_path
):
    with pytest.raises(
        ValueError, match="1.parquet, column 'c' is .* in the files bef"
    ):
        parquet_files(tmp_path, first, second)


def test_decimals_of_several_files_are_as_wide_as_they_must_be(tmp_path):
    first = pa.array([decimal.Decimal("1.5")])
    second = pa.array([decimal.Decimal("12345.123")])
    found = kept(parquet_files(tmp_path, first, second))["c"]
    assert found.to_pylist() == [decimal.Decimal("1.5"), decimal.Decimal("12345.123")]


def test_folder_keys_have_the_types_that_they_have_as_inputs(tmp_path):
    for year, word in (("2023", "a%20b"), ("2024", "__HIVE_DEFAULT_PARTITION__")):
        folder = tmp_path / f"year={year}" / f"word={word}"
        folder.mkdir(parents=True)
        pq.write_table(pa.table({"a": [1, 2]}), folder / "x.parquet")
    source = files.Parquet(tmp_path, columns="a").open_rows(None, ["word", "year"])
    table = kept(source, 3)
    assert table.schema.types == [pa.string(), pa.int64()]
    assert table.to_pydict() == {
        "word": ["a b", "a b", None, None],
        "year": [2023, 2023, 2024, 2024],
    }
