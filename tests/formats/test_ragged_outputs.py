"""Outputs whose rows differ in length: lists in Parquet, an error in other formats."""

import json
import pathlib
import tempfile

import numpy as np
import pandas as pd
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mgpu_strategy.formats.parquet.write import ParquetFormat
from keras_mgpu_strategy.outputs.column_names import check_described
from keras_mgpu_strategy.outputs.columns import describe
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.types import Ragged
from tests.formats import stored
from tests.formats.test_file_sinks import STEPS, Run


def ragged(num_rows, shape, dtype, seed=0):
    """Rows of 0 to 5 tokens, the first of which begins at value 2."""
    lengths = np.random.default_rng(seed).integers(0, 6, num_rows)
    offsets = 2 + np.concatenate([[0], np.cumsum(lengths)])
    values = np.array([b"a", b"", "ä".encode()] * offsets[-1], object)[: offsets[-1]]
    if dtype is not object:
        values = stored.some((offsets[-1] + 3, *shape), dtype, seed)
    return Ragged(values, offsets)


def tagged(num_rows, seed=0):
    return {
        "tags": ragged(num_rows, (2,), np.float32, seed),
        "ids": ragged(num_rows, (), np.int64, seed),
        "words": ragged(num_rows, (), object, seed),
        "half": ragged(num_rows, (2, 1), np.float16, seed),
        "score": stored.number(num_rows, seed),
    }


def rows_in(outputs, name, rows):
    return [np.asarray(row) for row in outputs[name][rows].to_tensor()]


@settings(max_examples=8, deadline=None)
@given(steps=STEPS, num_rows=st.integers(0, 40), known=st.booleans())
def test_interrupted_runs_leave_the_same_bytes(steps, num_rows, known):
    missing = (3, 4, 30) if num_rows > 30 else ()
    what = stored.results(tagged, num_rows, missing=missing)
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        expected = stored.written("parquet", path / "whole", what)
        run = Run("parquet", path / "cut", what if known else what.unknown())
        run.other_outputs = tagged(num_rows, seed=1)
        for step, size in steps:
            getattr(run, step)(size)
        assert run.finish() == expected


@pytest.mark.parametrize("read", [pq.read_table, pd.read_parquet])
def test_lists_are_read_and_those_of_missing_rows_are_null(read, tmp_path):
    what = stored.results(tagged, 30, missing=(7, 8))
    stored.written("parquet", tmp_path / "out", what)
    table = read(tmp_path / "out")
    for name in ("tags", "ids", "words"):
        found = table[name].to_pylist() if read is pq.read_table else list(table[name])
        assert found[7] is None and found[8] is None
        expected = rows_in(what.outputs, name, slice(9, 30))
        for one, other in zip(found[9:], expected, strict=True):
            one = np.array(list(one))
            if name == "words":
                one = np.char.encode(one.astype(str), "utf-8")
            np.testing.assert_array_equal(one.reshape(other.shape), other)


def test_shards_hold_the_rows_of_the_whole(tmp_path):
    whole = tagged(40)
    for index, (first, stop) in enumerate([(0, 16), (16, 40)]):
        ends = {"first_row": first, "stop_row": stop, "num_rows": 40}
        layout = stored.layout_of(whole, shard=Shard(index, 2), **ends)
        what = stored.Results(stored.cut(whole, first, stop), layout)
        stored.written("parquet", tmp_path / "out", what)
    found = pq.read_table(tmp_path / "out")["ids"].to_pylist()
    assert found == whole["ids"].to_tensor().to_list()


def test_parts_are_smaller_if_rows_may_be_long(tmp_path):
    outputs = {"tags": ragged(1, (10,), np.float32)}
    sizes = []
    for tokens in (8, 512):
        layout = stored.layout_of(outputs, row_tokens=tokens)
        sink = ParquetFormat().create(tmp_path / "out", layout)
        sizes.append(sink._limit())
        sink.close()
    assert sizes == [2**17, 2**11]


def test_other_formats_refuse_them_before_anything_is_touched(tmp_path):
    layout = stored.layout_of(tagged(3))
    for kind in ("npy", "csv", "zarr"):
        message = f"A .{kind} output cannot hold outputs whose rows differ in length"
        with pytest.raises(ValueError, match=message):
            stored.FORMATS[kind].create(tmp_path / "out", layout)
    assert not any(tmp_path.iterdir())


def test_a_journal_describes_them():
    described = json.loads(json.dumps(describe(stored.layout_of(tagged(3)))))
    assert ["tags", [None, 2], "float32"] in described
    check_described(described)
    with pytest.raises(ValueError, match="it describes an output by"):
        check_described([["tags", [2, None], "float32"]])
