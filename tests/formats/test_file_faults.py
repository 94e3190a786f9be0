"""Processes that are killed and disks that are full, for real."""

import random
import re
import resource
import time

import numpy as np
import pytest

from keras_mgpu_strategy.formats.npy.write import NpyFormat
from keras_mgpu_strategy.outputs.shards import Shard
from tests.formats import stored

NUM_ROWS = 6000
STEP = 7


@pytest.fixture(params=stored.FORMATS)
def kind(request):
    return request.param


@pytest.fixture
def formats(monkeypatch):
    """Parts and chunks of some hundred rows: files of the usual number."""
    larger = {
        "parquet": stored.ParquetFormat(part_bytes=2**14),
        "zarr": stored.ZarrFormat(chunk_bytes=2**13),
    }
    monkeypatch.setattr(stored, "FORMATS", {**stored.FORMATS, **larger})


def wait_until(is_so):
    deadline = time.monotonic() + 30
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.001)


def write_slowly(kind, path, what, marks):
    """Writes a few rows at a time, and notes each flush, as a run does."""
    sink = stored.resumed(kind, path, what, stored.last_mark(marks))
    while sink.num_written < what.stop:
        what.write(sink, min(what.stop, sink.num_written + STEP))
        if random.random() < 0.3:
            stored.note(marks, sink.flush())
    sink.finish()
    stored.note(marks, {"finished": 1})


@pytest.mark.parametrize("known", [True, False])
def test_killed_runs_go_on_and_leave_the_same_bytes(kind, known, formats, tmp_path):
    what = stored.results(stored.many, NUM_ROWS, has_names=True)
    expected = stored.written(kind, tmp_path / "whole", what)
    what = what if known else what.unknown()
    path, marks = tmp_path / "out", tmp_path / "marks"
    kills = 0
    for _ in range(8):
        before = marks.stat().st_size if marks.exists() else 0
        process = stored.in_child(lambda: write_slowly(kind, path, what, marks))
        wait_until(lambda b=before: marks.exists() and marks.stat().st_size > b)
        time.sleep(random.random() * 0.05)
        kills += stored.kill(process) == -9
        if "finished" in stored.last_mark(marks):
            break
    else:
        sink = stored.resumed(kind, path, what, stored.last_mark(marks))
        what.write(sink, what.stop)
        sink.finish()
    assert kills
    assert stored.content(path) == expected


def write_until_full(kind, path, what, marks, limit):
    """Writes to a disk that takes no file longer than `limit` bytes."""
    hard = resource.getrlimit(resource.RLIMIT_FSIZE)[1]
    sink = stored.FORMATS[kind].create(path, what.layout)
    what.write(sink, 50)
    stored.note(marks, sink.flush())
    resource.setrlimit(resource.RLIMIT_FSIZE, (limit, hard))
    try:
        while sink.num_written < what.stop:
            what.write(sink, min(what.stop, sink.num_written + STEP))
            sink.flush()
    except OSError as error:
        resource.setrlimit(resource.RLIMIT_FSIZE, (hard, hard))
        # The file that did not fit: the output, or one in its folder.
        assert re.fullmatch(rf".*File too large: '{path}.*'", str(error))
        # What a run that fails does: keep what there is.
        stored.note(marks, sink.flush())
        sink.close()
        return
    raise AssertionError("no OSError")


def test_a_full_disk_is_an_error_and_finished_rows_stay(kind, formats, tmp_path):
    what = stored.results(stored.many, NUM_ROWS, has_names=True)
    expected = stored.written(kind, tmp_path / "whole", what)
    what = what.unknown()
    path, marks = tmp_path / "out", tmp_path / "marks"
    limit = {"zarr": 4000, "parquet": 8000}.get(kind, 30_000)
    process = stored.in_child(lambda: write_until_full(kind, path, what, marks, limit))
    assert stored.exit_code(process) == 0
    mark = stored.last_mark(marks)
    assert 50 < mark["rows"] < NUM_ROWS
    sink = stored.resumed(kind, path, what, mark)
    what.write(sink, what.stop)
    sink.finish()
    assert stored.content(path) == expected


def create_on_a_full_disk(path, what):
    resource.setrlimit(resource.RLIMIT_FSIZE, (10_000, 10_000))
    with pytest.raises(OSError, match="for .* bytes of results"):
        NpyFormat().create(path, what.layout)


@pytest.mark.parametrize("make", [stored.one, stored.many])
def test_npy_finds_a_full_disk_before_any_row(make, tmp_path):
    what = stored.results(make, NUM_ROWS)
    path = tmp_path / "out"
    process = stored.in_child(lambda: create_on_a_full_disk(path, what))
    assert stored.exit_code(process) == 0
    assert not path.exists()


def write_shard(kind, path, what, marks):
    sink = stored.FORMATS[kind].create(path, what.layout)
    while sink.num_written < what.stop:
        what.write(sink, min(what.stop, sink.num_written + STEP))
        stored.note(marks, sink.flush())
    sink.finish()


@pytest.mark.parametrize("kind", ["zarr", "parquet"])
def test_shards_write_one_output_at_the_same_time(kind, formats, tmp_path):
    ends = [0, 512, 1024, 1024, 1500]
    path = tmp_path / "out"
    path.mkdir()
    shards, processes = [], []
    for index, (first, stop) in enumerate(zip(ends[:-1], ends[1:], strict=True)):
        what = stored.results(
            stored.many,
            1500,
            has_names=True,
            first_row=first,
            stop_row=stop,
            shard=Shard(index, 4),
            row_multiple=512,
        )
        whole = stored.many(1500)
        what.outputs = stored.cut(whole, first, stop)
        shards.append(what)
    for index, what in enumerate(shards):
        marks = tmp_path / f"marks{index}"
        work = lambda what=what, marks=marks: write_shard(kind, path, what, marks)  # noqa: E731
        processes.append(stored.in_child(work))
    victim = tmp_path / "marks1"
    wait_until(lambda: stored.last_mark(victim) is not None)
    stored.kill(processes.pop(1))
    assert [stored.exit_code(process) for process in processes] == [0, 0, 0]
    sink = stored.resumed(kind, path, shards[1], stored.last_mark(victim))
    shards[1].write(sink, 1024)
    sink.finish()
    one_by_one = tmp_path / "one_by_one"
    for what in shards:
        expected = stored.written(kind, one_by_one, what)
    assert stored.content(path) == expected


def test_random_values_differ_so_that_mistakes_show():
    assert not np.array_equal(stored.one(9), stored.one(9, seed=1))
