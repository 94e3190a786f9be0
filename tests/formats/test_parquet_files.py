"""What `.parquet` folders hold."""

import duckdb
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from keras_mgpu_strategy.formats.parquet.parts import Spool
from keras_mgpu_strategy.formats.parquet.write import ParquetFormat
from keras_mgpu_strategy.outputs.shards import Shard
from tests.formats import stored

DTYPES = ["?", "i1", "u2", "i4", "u8", "f2", "f4", "f8"]
SHAPES = {"number": (), "vector": (3,), "tensor": (2, 3), "column": (1,)}
TINY = stored.FORMATS["parquet"]


def by_pandas(folder):
    return pd.read_parquet(folder)


def by_polars(folder):
    return pl.read_parquet(folder / "*.parquet").to_pandas()


def by_duckdb(folder):
    return duckdb.sql(f"SELECT * FROM '{folder}/*.parquet' ORDER BY row").df()


every_reader = pytest.mark.parametrize("read", [by_pandas, by_polars, by_duckdb])


def arrays_in(column, dtype=None):
    """A frame's column, whose values may be nested, as one array."""
    return np.array([_plain(value) for value in column], dtype)


def _plain(value):
    if isinstance(value, np.ndarray | list):
        return [_plain(inner) for inner in value]
    return bytes(value) if isinstance(value, bytearray) else value


@every_reader
def test_every_type_and_shape_is_read(read, tmp_path):
    outputs = {
        f"{name}_{number}": stored.some((30, *shape), dtype)
        for name, shape in SHAPES.items()
        for number, dtype in enumerate(DTYPES)
    }
    what = stored.Results(outputs, stored.layout_of(outputs))
    stored.written("parquet", tmp_path / "out", what)
    frame = read(tmp_path / "out")
    assert frame["row"].tolist() == list(range(30))
    for name, values in outputs.items():
        read_back = arrays_in(frame[name], values.dtype)
        assert read_back.shape == values.shape
        np.testing.assert_array_equal(read_back, values)


@every_reader
def test_strings_are_read(read, tmp_path):
    what = stored.results(stored.texts, 30, missing=(3,))
    stored.written("parquet", tmp_path / "out", what)
    frame = read(tmp_path / "out")
    present = ~what.missing
    assert frame["label"].isna().to_numpy().nonzero()[0].tolist() == [3]
    for name, values in what.outputs.items():
        found = arrays_in(frame[name][present], object)
        assert found.tolist() == [
            [text.decode() for text in row] if name == "words" else row.decode()
            for row in values[present]
        ]


@every_reader
def test_missing_rows_are_null_in_all_outputs(read, tmp_path):
    what = stored.results(stored.nested, 40, has_names=True, missing=(0, 7, 8, 39))
    what.outputs["tensor"] = stored.tensor(40)
    what.outputs["heads"][0] = np.arange(40, dtype=np.float16)  # NaN would read as null
    what.layout = stored.layout_of(what.outputs, has_names=True)
    stored.written("parquet", tmp_path / "out", what)
    frame = read(tmp_path / "out")
    assert list(frame.columns[:2]) == ["row", "file"]
    assert frame["file"].tolist() == stored.names_of(0, 40)
    for column in what.layout.columns:
        nulls = frame[column.name].isna().to_numpy()
        assert nulls.nonzero()[0].tolist() == [0, 7, 8, 39]
    present = ~what.missing
    np.testing.assert_array_equal(
        arrays_in(frame["tensor"][present]), what.outputs["tensor"][present]
    )
    np.testing.assert_array_equal(
        frame["a"][present].to_numpy(np.int32), what.outputs["a"][present]
    )


@every_reader
def test_no_rows_are_one_part_with_the_columns(read, tmp_path):
    what = stored.results(stored.many, 0, has_names=True)
    files = stored.written("parquet", tmp_path / "out", what)
    assert list(files) == ["part-00000.parquet"]
    frame = read(tmp_path / "out")
    assert list(frame.columns) == ["row", "file", "id", "scores"]
    assert len(frame) == 0


def test_nan_is_not_null(tmp_path):
    outputs = np.array([np.nan, 1.0])
    what = stored.Results(outputs, stored.layout_of(outputs))
    stored.written("parquet", tmp_path / "out", what)
    column = pq.read_table(tmp_path / "out")["output"]
    assert column.null_count == 0
    assert np.isnan(column[0].as_py())


def test_parts_hold_a_power_of_two_of_rows_from_the_layout_alone(tmp_path):
    what = stored.results(stored.one, 30)
    stored.written("parquet", tmp_path / "out", what)
    sizes = [pq.read_metadata(p).num_rows for p in sorted((tmp_path / "out").iterdir())]
    assert sizes == [8, 8, 8, 6]
    layout = stored.layout_of(np.zeros((1, 1000), np.float32))
    usual = ParquetFormat().create(tmp_path / "usual", layout)
    assert usual._limit() == 2**14
    usual.close()


def test_shards_share_a_folder(tmp_path):
    path = tmp_path / "out"
    whole = stored.one(40)
    for index, (first, stop) in enumerate([(0, 16), (16, 32), (32, 40)]):
        layout = stored.layout_of(
            whole, first_row=first, stop_row=stop, num_rows=40, shard=Shard(index, 3)
        )
        what = stored.Results(whole[first:stop], layout)
        stored.written("parquet", path, what)
    assert sorted(file.name for file in path.iterdir()) == [
        f"part-{index:05d}-of-00003-{part:05d}.parquet"
        for index, num_parts in enumerate([2, 2, 1])
        for part in range(num_parts)
    ]
    frame = by_duckdb(path)
    assert frame["row"].tolist() == list(range(40))
    np.testing.assert_array_equal(arrays_in(frame["output"]), whole)


def begun(path):
    """An output with 13 of 30 rows written, 8 of them as a part."""
    what = stored.results(stored.one, 30)
    sink = TINY.create(path, what.layout)
    what.write(sink, 11)
    sink.flush()
    what.write(sink, 13)
    mark = sink.flush()
    sink.close()
    assert mark == {"rows": 13}
    names = sorted(file.name for file in path.iterdir())
    assert names == [".unfinished", "part-00000.parquet"]
    return what, mark


def test_what_is_half_written_after_the_mark_is_dropped(tmp_path):
    what, mark = begun(tmp_path / "out")
    with open(tmp_path / "out/.unfinished", "ab") as file:
        file.write((1000).to_bytes(8, "little") + b"torn")
    (tmp_path / "out/.part-00001.parquet.partial").write_bytes(b"PAR1")
    (tmp_path / "out/.part-00007.parquet.partial").write_bytes(b"PAR1")
    (tmp_path / "out/..unfinished.partial").write_bytes(b"")
    (tmp_path / "out/part-00009.parquet").write_bytes(b"PAR1")
    stored.assert_resumes("parquet", tmp_path / "out", what, mark)


@pytest.mark.parametrize("rest", [b"", b"\0", b"\xff"])
def test_rows_whose_end_never_reached_the_disk_are_not_read(rest, tmp_path):
    table = pa.table({"text": ["a", "bc", "d"], "values": [[1.0], [], [2.0, 3.0]]})
    spool = Spool(tmp_path / "spool")
    spool.add(table)
    spool.close()
    frame = (tmp_path / "spool").read_bytes()
    for end in range(0, len(frame), 7):
        cut = frame[:end] + rest * (len(frame) - end)
        (tmp_path / "spool").write_bytes(frame + cut)
        assert spool.read(table.schema, 6).slice(0, 3).equals(table)


@pytest.mark.parametrize("rows", [0, 3, 8, 11, 13])
def test_every_earlier_mark_can_be_resumed_from(rows, tmp_path):
    what, _ = begun(tmp_path / "out")
    for _ in range(2):
        stored.assert_resumes("parquet", tmp_path / "out", what, {"rows": rows})


def remove_spool(folder):
    (folder / ".unfinished").unlink()


def cut_spool(folder):
    content = (folder / ".unfinished").read_bytes()
    (folder / ".unfinished").write_bytes(content[:-1])


def remove_part(folder):
    (folder / "part-00000.parquet").unlink()


def cut_part(folder):
    content = (folder / "part-00000.parquet").read_bytes()
    (folder / "part-00000.parquet").write_bytes(content[:-1])


def shorten_part(folder):
    path = folder / "part-00000.parquet"
    pq.write_table(pq.read_table(path).slice(0, 7), path)


DAMAGES = [
    (remove_spool, "lacks rows 8 to 13, which no file holds"),
    (cut_spool, "lacks rows 8 to 13, which no file holds"),
    (remove_part, "lacks rows 0 to 8, which no file holds"),
    (cut_part, "part-00000.parquet cannot be read"),
    (shorten_part, "part-00000.parquet has 7 rows, expected at least 8"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_folder_cannot_be_continued(damage, message, tmp_path):
    what, mark = begun(tmp_path / "out")
    damage(tmp_path / "out")
    stored.assert_not_resumed("parquet", tmp_path / "out", what, mark, message)


def test_rows_without_a_value_are_refused():
    message = r"whose rows of shape \(0,\) hold no values"
    with pytest.raises(ValueError, match=message):
        ParquetFormat().check(stored.layout_of(np.zeros((2, 0))))
