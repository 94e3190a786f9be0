"""What every file sink guarantees, whatever its format."""

import dataclasses
import pathlib
import tempfile

import numpy as np
import pyarrow.parquet as pq
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.outputs.interface import Layout
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.types import NO_MARKS, HostBatch, RowMarks
from tests.formats import stored

every_format = pytest.mark.parametrize("kind", stored.FORMATS)
every_output = pytest.mark.parametrize("make", stored.OUTPUTS.values())


@pytest.fixture(scope="module", params=stored.FORMATS)
def kind(request):
    return request.param


@dataclasses.dataclass
class Run:
    """A write run that is interrupted again and again."""

    kind: str
    path: pathlib.Path
    what: stored.Results
    other_outputs: object = None
    mark: dict[str, int] | None = None

    def __post_init__(self):
        self.sink = stored.resumed(self.kind, self.path, self.what, None)

    def forward(self, num_rows):
        self.what.write(
            self.sink, min(self.what.stop, self.sink.num_written + num_rows)
        )

    def flush(self, num_rows):
        self.forward(num_rows)
        self.mark = self.sink.flush()
        assert self.mark["rows"] == self.sink.num_written

    def lose(self, num_rows):
        """Writes other rows after the mark, stops there and resumes at the mark."""
        self.flush(0)
        stop = min(self.what.stop, self.sink.num_written + num_rows)
        self.what.write(self.sink, stop, self.other_outputs)
        self.stop()

    def stop(self, _=0):
        self.sink.close()
        self.sink = stored.resumed(self.kind, self.path, self.what, self.mark)
        at = self.what.first if self.mark is None else self.mark["rows"]
        assert self.sink.num_written == at

    def finish(self):
        if self.sink.num_written < self.what.stop or self.what.stop == 0:
            self.forward(self.what.stop)
        self.sink.finish()
        return stored.content(self.path)


STEPS = st.lists(
    st.tuples(
        st.sampled_from(["forward", "flush", "lose", "stop"]), st.integers(0, 17)
    ),
    max_size=12,
)


@every_output
@settings(max_examples=10, deadline=None)
@given(steps=STEPS, num_rows=st.integers(0, 40), known=st.booleans())
def test_interrupted_runs_leave_the_same_bytes(kind, make, steps, num_rows, known):
    with tempfile.TemporaryDirectory() as folder:
        path = pathlib.Path(folder)
        marked = {"has_names": num_rows % 2 == 1}
        marked["has_kept"] = kind in stored.TABLES and num_rows % 3 == 1
        what = stored.results(make, num_rows, **marked)
        expected = stored.written(kind, path / "whole", what)
        run = Run(kind, path / "cut", what if known else what.unknown())
        run.other_outputs = make(num_rows, seed=1)
        for step, size in steps:
            getattr(run, step)(size)
        assert run.finish() == expected
        if run.mark is not None:
            run.stop()  # as if killed before the output gets its name
            assert run.finish() == expected


@pytest.mark.parametrize("num_rows", [0, 3, 16])
def test_an_input_that_ends_at_an_earlier_mark_drops_the_rest(kind, num_rows, tmp_path):
    shorter = stored.results(stored.many, num_rows)
    expected = stored.written(kind, tmp_path / "whole", shorter)
    longer = stored.Results(stored.many(40), shorter.layout).unknown()
    longer.outputs["id"][:num_rows] = shorter.outputs["id"]
    longer.outputs["scores"][:num_rows] = shorter.outputs["scores"]
    run = Run(kind, tmp_path / "out", longer)
    run.flush(num_rows)
    mark = run.mark
    run.flush(40)
    sink = stored.resumed(kind, tmp_path / "out", longer, mark)
    sink.finish()
    run.sink.close()
    assert stored.content(tmp_path / "out") == expected


@every_output
@pytest.mark.parametrize("num_rows", [0, 1, 33])
def test_rows_need_not_be_known(kind, make, num_rows, tmp_path):
    what = stored.results(make, num_rows)
    known = stored.written(kind, tmp_path / "known", what)
    unknown = stored.written(kind, tmp_path / "unknown", what.unknown(), step=4)
    assert known == unknown


def test_an_output_without_rows_is_still_a_file(kind, tmp_path):
    what = stored.results(num_rows=0)
    sink = stored.FORMATS[kind].create(tmp_path / "empty", what.layout)
    sink.finish()
    assert stored.content(tmp_path / "empty")


def test_missing_rows_survive_interruption(kind, tmp_path):
    make = stored.many if kind in stored.MARKED else stored.one
    marked = {"has_names": True, "has_kept": kind in stored.TABLES}
    what = stored.results(make, 30, missing=(0, 5, 6, 29), **marked)
    expected = stored.written(kind, tmp_path / "whole", what)
    run = Run(kind, tmp_path / "cut", what)
    for size in (3, 4, 9, 13):
        run.flush(size)
        run.stop()
    assert run.finish() == expected


@pytest.mark.parametrize("kind", ["npy", "zarr"])
def test_missing_rows_of_integers_are_refused(kind, tmp_path):
    what = stored.results(stored.many, 30, missing=(7,))
    sink = stored.FORMATS[kind].create(tmp_path / "out", what.layout)
    what.write(sink, 5)
    message = "Row 7 could not be read, and int64 values, as output 'id' has.*parquet"
    with pytest.raises(ValueError, match=message):
        what.write(sink, 20)
    assert sink.num_written == 5
    sink.close()


def test_what_is_stored_does_not_change_with_the_callers_array(kind, tmp_path):
    what = stored.results(stored.one, 30)
    expected = stored.written(kind, tmp_path / "whole", what)
    sink = stored.FORMATS[kind].create(tmp_path / "reused", what.layout)
    for start in range(0, 30, 3):
        reused = what.outputs[start : start + 3].copy()
        sink.write(HostBatch(start, reused))
        reused[:] = -1
    sink.finish()
    assert stored.content(tmp_path / "reused") == expected


def test_rows_of_a_shard_begin_where_it_begins(kind, tmp_path):
    ends = {"first_row": 16, "stop_row": 48, "num_rows": 90}
    what = stored.results(stored.many, shard=Shard(1, 3), row_multiple=16, **ends)
    expected = stored.written(kind, tmp_path / "whole", what)
    run = Run(kind, tmp_path / "cut", what)
    run.other_outputs = stored.many(32, seed=1)
    for size in (3, 16, 2, 9):
        run.flush(size)
        run.lose(11)
    assert run.sink.num_written == 46
    assert run.finish() == expected


def test_create_replaces_what_is_there(kind, tmp_path):
    path = tmp_path / "out"
    small, large = stored.results(num_rows=5), stored.results(stored.many, 40)
    expected = stored.written(kind, tmp_path / "fresh", small)
    for old in (large, small):
        stored.written(kind, path, old)
        assert stored.written(kind, path, small) == expected
    assert {p.name for p in tmp_path.iterdir()} == {"fresh", "out"}


def test_other_byte_orders_and_views_are_stored_the_same(kind, tmp_path):
    what = stored.results(stored.one, 30)
    expected = stored.written(kind, tmp_path / "whole", what)
    what.outputs = np.asfortranarray(what.outputs.astype(">f4"))
    assert stored.written(kind, tmp_path / "other", what, step=7) == expected


def _wrong(outputs, start=4, marks=NO_MARKS):
    return HostBatch(start, outputs, marks)


WRONG = {
    "place": (
        _wrong(stored.one(2), start=6),
        "begins at row 6, but row 4 is the next to store",
    ),
    "shape": (
        _wrong(np.zeros((2, 4), np.float32)),
        r"'output' has rows of shape \(4,\) from row 4 on, but \(3,\) before. Rows of "
        "different shapes cannot be stored in one array; pad",
    ),
    "dtype": (
        _wrong(np.zeros((2, 3))),
        "'output' is float64 from row 4 on, but float32 before",
    ),
    "too_many": (
        _wrong(stored.one(7)),
        "rows 4 to 11 goes beyond the 10 rows",
    ),
    "outputs": (
        _wrong([stored.one(2), stored.one(2)]),
        "has 2 outputs, but the file was begun with 1: output",
    ),
    "no_rows": (_wrong(np.float32(3)), "an output without rows"),
    "marks": (
        _wrong(stored.one(2), marks=RowMarks(missing=np.zeros(3, bool))),
        r"Rows 4 to 6 came with marks of shape \(3,\). Expected \(2,\)",
    ),
}


@pytest.mark.parametrize("case", WRONG)
def test_a_batch_that_does_not_fit_is_refused_and_does_no_harm(kind, case, tmp_path):
    what = stored.results(stored.one, 10)
    expected = stored.written(kind, tmp_path / "whole", what)
    sink = stored.FORMATS[kind].create(tmp_path / "out", what.layout)
    what.write(sink, 4)
    batch, message = WRONG[case]
    with pytest.raises(ValueError, match=message):
        sink.write(batch)
    with pytest.raises(ValueError, match="Rows 4 to 10 were not written"):
        sink.finish()
    what.write(sink, 10)
    sink.finish()
    assert stored.content(tmp_path / "out") == expected


def test_outputs_of_different_lengths_and_missing_names_are_refused(kind, tmp_path):
    what = stored.results(stored.many, 10, has_names=True)
    sink = stored.FORMATS[kind].create(tmp_path / "out", what.layout)
    uneven = {**stored.many(3), "id": np.zeros(2, np.int64)}
    with pytest.raises(ValueError, match="another output has 2"):
        sink.write(HostBatch(0, uneven, RowMarks(names=["a", "b"])))
    with pytest.raises(ValueError, match="Rows 0 to 3 came with 0 names"):
        sink.write(HostBatch(0, stored.many(3)))
    sink.close()


def test_a_closed_sink_takes_no_rows(kind, tmp_path):
    what = stored.results(stored.one, 10)
    sink = stored.FORMATS[kind].create(tmp_path / "out", what.layout)
    sink.close()
    sink.close()
    with pytest.raises(ValueError, match="The output is closed"):
        what.write(sink, 3)
    with pytest.raises(ValueError, match="The output is closed"):
        sink.flush()


def test_a_missing_output_cannot_be_continued(kind, tmp_path):
    what = stored.results(stored.many, 30)
    mark = {"rows": 20, "bytes": 400}
    with pytest.raises(ValueError, match="is missing, so the unfinished output"):
        stored.FORMATS[kind].reopen(tmp_path / "none", what.layout, mark)


@pytest.mark.parametrize("kind", ["parquet", "csv"])
def test_other_types_are_refused(kind):
    layout = stored.layout_of(np.zeros(3, np.complex64))
    message = "'output' of dtype complex64. Expected bool, integers, floats or strings"
    with pytest.raises(ValueError, match=message):
        stored.FORMATS[kind].check(layout)


def test_strings_may_come_as_any_kind_of_array(kind, tmp_path):
    what = stored.results(stored.texts, 30)
    expected = stored.written(kind, tmp_path / "objects", what)
    what.outputs = {
        "label": np.array([text.decode() for text in what.outputs["label"]]),
        "words": what.outputs["words"].astype("S"),
    }
    assert stored.written(kind, tmp_path / "others", what) == expected


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_bfloat16_is_widened_exactly(kind, tmp_path):
    what = stored.bfloat16s()
    sink = registry.writer_of(f"out.{kind}").create(tmp_path / "out", what.layout)
    what.write(sink, 2**16)
    sink.finish()
    if kind == "zarr":
        read = zarr.open_group(tmp_path / "out", mode="r")["output"][:]
    else:
        read = pq.read_table(tmp_path / "out")["output"].to_numpy()
    assert read.dtype == np.float32
    np.testing.assert_array_equal(read, what.outputs.astype(np.float32))


UNFIT = {
    "npy": (b"\xff end\0", "a NUL at its end, which NumPy drops. Give a .parquet"),
    "parquet": (b"\0 \xff", "bytes that are not UTF-8. Give a .npy output"),
    "zarr": (b"\0 \xff", "bytes that are not UTF-8. Give a .npy output"),
    "csv": (b"a \0 b", "the character NUL. Give a .parquet output"),
}


@pytest.mark.parametrize("kind", UNFIT)
def test_strings_that_could_not_be_read_back_are_refused(kind, tmp_path):
    bad, message = UNFIT[kind]
    what = stored.results(stored.texts, 30)
    good, what.outputs["words"][17, 1] = what.outputs["words"][17, 1], bad
    sink = stored.FORMATS[kind].create(tmp_path / "out", what.layout)
    what.write(sink, 10)
    with pytest.raises(ValueError, match=f"'words' of row 17, .*: it has {message}"):
        what.write(sink, 20)
    assert sink.num_written == 10
    what.outputs["words"][17, 1] = good
    what.write(sink, 30)
    sink.finish()
    assert stored.content(tmp_path / "out") == (
        stored.written(kind, tmp_path / "whole", what)
    )


@pytest.mark.parametrize("kind", ["parquet", "zarr"])
def test_a_missing_package_names_its_extra(kind, monkeypatch):
    package = {"parquet": "pyarrow"}.get(kind, kind)
    monkeypatch.setitem(__import__("sys").modules, package, None)
    with pytest.raises(ImportError, match=rf"keras_mgpu_strategy\[{kind}\]"):
        stored.FORMATS[kind].check(stored.results().layout)


def test_a_layout_of_columns_alone_is_enough(kind, tmp_path):
    layout = Layout(stored.results(stored.one, 4).layout.columns)
    what = stored.Results(stored.one(4), layout)
    assert stored.written(kind, tmp_path / "out", what)
