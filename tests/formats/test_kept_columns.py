"""Columns next to the results, in every table format."""

import csv
import datetime
import decimal

import numpy as np
import pandas as pd
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keras_mgpu_strategy.formats.parquet.arrow_table import stored_kept
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.types import HostBatch, RowMarks
from tests.formats import stored

every_table = pytest.mark.parametrize("kind", stored.TABLES)


def written(kind, path, table, step=5):
    """Writes numbers with a table next to them, a few rows at a time."""
    numbers = np.arange(table.num_rows, dtype=np.float32)
    layout = stored.layout_of(numbers, kept=table.schema)
    what = stored.Results(numbers, layout, kept=table)
    stored.written(kind, path, what, step)
    return path


def test_a_parquet_file_holds_them_as_they_are(tmp_path):
    table = stored.kept(40)
    found = pq.read_table(written("parquet", tmp_path / "out", table))
    assert found.column_names == ["row", *table.column_names, "output"]
    assert found.select(table.column_names).equals(table)
    assert len(list((tmp_path / "out").iterdir())) > 10


BERLIN = "Europe/Berlin"
TEXTS = {
    "seconds": (
        pa.array([0, None, -1], pa.timestamp("s")),
        ["1970-01-01T00:00:00", "", "1969-12-31T23:59:59"],
    ),
    "zone": (
        pa.array([1711846799999, 1711846800000], pa.timestamp("ms", BERLIN)),
        ["2024-03-31T01:59:59.999+01:00", "2024-03-31T03:00:00.000+02:00"],
    ),
    "nanoseconds": (
        pa.array([1], pa.timestamp("ns", "+05:30")),
        ["1970-01-01T05:30:00.000000001+05:30"],
    ),
    "date": (pa.array([datetime.date(2024, 2, 29), None]), ["2024-02-29", ""]),
    "time": (pa.array([datetime.time(1, 2, 3, 4)]), ["01:02:03.000004"]),
    "decimal": (
        pa.array([decimal.Decimal("0.0000000000"), decimal.Decimal("-12.5"), None]),
        ["0.0000000000", "-12.5000000000", ""],
    ),
    "float": (pa.array([0.1, 1e300, None, np.nan]), ["0.1", "1e+300", "", "nan"]),
    "narrow": (pa.array([0.1, None], pa.float32()), ["0.1", ""]),
    "bool": (pa.array([True, None, False]), ["true", "", "false"]),
    "integer": (pa.array([2**64 - 1, None], pa.uint64()), ["18446744073709551615", ""]),
    "text": (
        pa.array(['"a", b\r\nc', "", None, "=1+1", "007"]),
        ['"a", b\r\nc', "", "", "=1+1", "007"],
    ),
}


@pytest.mark.parametrize("case", TEXTS)
def test_a_csv_file_holds_texts(case, tmp_path):
    column, expected = TEXTS[case]
    path = written("csv", tmp_path / "out", pa.table({"c": column}))
    with open(path, newline="", encoding="utf-8") as file:
        header, *lines = csv.reader(file)
    assert header == ["row", "c", "output"]
    assert [line[1] for line in lines] == expected


def test_csv_times_read_back_as_the_same_instants(tmp_path):
    table = stored.kept(40)
    read = pd.read_csv(written("csv", tmp_path / "out", table))
    found = pd.to_datetime(read["at"], utc=True, format="ISO8601")
    expected = table["at"].to_pandas().dt.tz_convert("UTC")
    pd.testing.assert_series_equal(found, expected, check_dtype=False)


STORED = {
    pa.timestamp("s", BERLIN): pa.timestamp("ms", BERLIN),
    pa.time32("s"): pa.time32("ms"),
    pa.date64(): pa.date32(),
    pa.list_(pa.int8()): pa.list_(pa.int8()),
    pa.list_(pa.string(), 2): pa.list_(pa.string(), 2),
    pa.struct([("a", pa.large_list(pa.int8()))]): None,
    pa.map_(pa.string(), pa.decimal128(5, 2)): None,
    pa.binary(): None,
    pa.float16(): None,
    pa.duration("us"): None,
    pa.decimal256(50, 3): None,
    pa.null(): None,
}


@pytest.mark.parametrize("given", STORED, ids=str)
def test_parquet_files_have_types_that_do_not_change(given, tmp_path):
    table = pa.table({"c": pa.array([None, None, None], given)})
    path = written("parquet", tmp_path / "out", table, step=2)
    found = pq.read_table(path)["c"]
    assert found.null_count == 3
    assert found.type.equals(STORED[given] or given)
    again = stored_kept(Layout((), kept=table.schema))
    assert again.field("c").type.equals(found.type)


@pytest.mark.parametrize(
    ("kind", "type_", "message"),
    [
        ("csv", pa.binary(), "'c' of type binary. Expected numbers.*Give a .parquet"),
        ("csv", pa.list_(pa.int8()), "kept column 'c' of type list"),
        ("csv", pa.struct([("a", pa.int8())]), "kept column 'c' of type struct"),
        ("csv", pa.duration("s"), "kept column 'c' of type duration"),
        (
            "parquet",
            pa.month_day_nano_interval(),
            "'c' of type month_day_nano",
        ),
        ("parquet", pa.struct([]), "kept column 'c' of type struct<>"),
        (
            "parquet",
            pa.list_(pa.dictionary(pa.int8(), pa.string())),
            "kept column 'c' of type list.*it holds dictionaries",
        ),
    ],
    ids=str,
)
def test_types_that_a_format_lacks_are_refused_beforehand(kind, type_, message):
    layout = Layout((), kept=pa.schema([("c", type_)]))
    with pytest.raises(ValueError, match=message):
        stored.FORMATS[kind].check(layout)


@every_table
@pytest.mark.parametrize("name", ["row", "FILE", "Scores", "scores"])
def test_names_of_other_columns_are_refused(kind, name):
    make = stored.number if kind == "csv" else stored.one
    layout = stored.layout_of(
        {"scores": make(3)}, kept=pa.schema([("a", pa.int8()), (name, pa.int8())])
    )
    with pytest.raises(ValueError, match=f"keep with '{name}', which is also the name"):
        stored.FORMATS[kind].check(layout)


def test_a_csv_file_has_a_column_for_each_number_of_an_output():
    names = ["output_1", "A", "a"]
    for kept in (names[:1], names[1:]):
        schema = pa.schema([(name, pa.int8()) for name in kept])
        with pytest.raises(ValueError, match="which is also the name of the"):
            stored.FORMATS["csv"].check(stored.layout_of(stored.one(3), kept=schema))


@every_table
def test_rows_with_other_columns_are_refused_whole(kind, tmp_path):
    what = stored.results(stored.one, 30, has_kept=True)
    expected = stored.written(kind, tmp_path / "whole", what)
    sink = stored.FORMATS[kind].create(tmp_path / "out", what.layout)
    what.write(sink, 10)
    some = what.outputs[10:20]
    for kept in (None, what.kept.slice(10, 9), what.kept.select(["key"]).slice(10, 10)):
        with pytest.raises(ValueError, match="Rows 10 to 20 came with other columns"):
            sink.write(HostBatch(10, some, RowMarks(kept=kept)))
    what.write(sink, 30)
    sink.finish()
    assert stored.content(tmp_path / "out") == expected


def test_a_nul_in_a_text_is_refused_with_its_row(tmp_path):
    table = pa.table({"c": ["a"] * 7 + ["b\0"] + ["c"]})
    layout = stored.layout_of(stored.one(9), kept=table.schema)
    sink = stored.FORMATS["csv"].create(tmp_path / "out", layout)
    message = r"hold 'b\\x00', row 7 of the kept column 'c'.*NUL"
    with pytest.raises(ValueError, match=message):
        sink.write(HostBatch(0, stored.one(9), RowMarks(kept=table)))
    assert sink.num_written == 0
    sink.close()


def test_types_alone_determine_which_rows_a_part_holds():
    layouts = [
        stored.layout_of(stored.one(1), kept=pa.schema([("c", type_)]))
        for type_ in (pa.int8(), pa.string(), pa.list_(pa.float64(), 100))
    ]
    sizes = [stored.ParquetFormat()._part_rows(layout) for layout in layouts]
    assert sizes == [2**20, 2**19, 2**16]
