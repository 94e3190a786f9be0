"""Shards that processes write at the same time; one process is really killed."""

import time

import pytest

from keras_mgpu_strategy.outputs.shards import Shard
from tests.formats import stored

STEP = 7


@pytest.fixture
def formats(monkeypatch):
    """Parts and chunks of a few hundred rows, for a realistic number of files."""
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
