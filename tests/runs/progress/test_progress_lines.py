"""Progress lines in a log."""

import io
import re

import pytest

from keras_mgpu_strategy.runs.figures import RowRange, duration, short_duration
from keras_mgpu_strategy.runs.progress import show_progress
from tests.runs.progress.watching import Run


def lines_of(steps, rows, num_replicas=1):
    log = io.StringIO()
    for _ in Run(num_replicas).show(steps, rows, stream=log):
        pass
    return log.getvalue().splitlines()


def test_a_line_every_30_seconds_and_one_at_the_end():
    lines = lines_of([(100_000, 10)] * 10, RowRange(stop=1_000_000))
    assert lines == [
        "300,000 of 1,000,000 rows (30%), 10,000 rows/s, 1 min 10 s left, input-bound",
        "600,000 of 1,000,000 rows (60%), 10,000 rows/s, 40 s left, input-bound",
        "900,000 of 1,000,000 rows (90%), 10,000 rows/s, 10 s left, input-bound",
        "1,000,000 of 1,000,000 rows (100%), 10,000 rows/s, in 1 min 40 s, input-bound",
    ]


def test_a_batch_that_takes_longer_has_its_line():
    lines = lines_of([(10, 300)] * 2, RowRange(stop=20))
    assert lines == [
        "10 of 20 rows (50%), 0.033 rows/s, 5 min 0 s left, input-bound",
        "20 of 20 rows (100%), 0.033 rows/s, 0 s left, input-bound",
        "20 of 20 rows (100%), 0.033 rows/s, in 10 min 0 s, input-bound",
    ]


def test_the_total_is_unknown_until_the_end():
    lines = lines_of([(1000, 10)] * 4, RowRange())
    assert lines == [
        "3,000 rows, 100 rows/s, input-bound",
        "4,000 of 4,000 rows (100%), 100 rows/s, in 40 s, input-bound",
    ]


def test_100_percent_is_all_rows():
    steps = [(99_999, 40), (1, 1)]
    assert "(99%)" in lines_of(steps, RowRange(stop=100_000))[0]


@pytest.mark.parametrize("steps", [[], [(0, 1)]])
@pytest.mark.parametrize("stop", [0, None])
def test_no_rows(steps, stop):
    (line,) = lines_of(steps, RowRange(stop=stop))
    assert line == f"0 of 0 rows (100%), in {len(steps)} s"


def test_the_rate_is_that_of_the_last_30_seconds():
    steps = [(1000, 10)] * 9 + [(10_000, 10)] * 6
    lines = lines_of(steps, RowRange(stop=100_000))
    assert [re.search(r"[\d,]+ rows/s", line)[0] for line in lines] == [
        *["100 rows/s"] * 3,
        *["1,000 rows/s"] * 2,
        "460 rows/s",  # 69,000 rows in 150 s
    ]


def test_rows_of_earlier_runs_are_done_but_do_not_count_for_the_rate():
    rows = RowRange(first=1000, start=9000, stop=11_000)
    assert lines_of([(100, 10)] * 4, rows) == [
        "8,300 of 10,000 rows (83%), 10 rows/s, 2 min 50 s left, input-bound",
        "8,400 of 10,000 rows (84%), 10 rows/s, in 40 s, input-bound",
    ]


def test_rows_that_are_run_again_count_as_done():
    run, log = Run(), io.StringIO()
    batches = run.batches([(64, 40)] * 3, start=64)
    rows = RowRange(start=150, stop=256)
    list(show_progress(batches, rows, run.clock, 2, stream=log, now=run.now))
    assert log.getvalue().splitlines() == [
        "150 of 256 rows (58%), 0 rows/s, input-bound",
        "192 of 256 rows (75%), 1.1 rows/s, 1 min 1 s left, input-bound",
        "256 of 256 rows (100%), 1.6 rows/s, 0 s left, input-bound",
        "256 of 256 rows (100%), 0.88 rows/s, in 2 min 0 s, input-bound",
    ]


def test_nothing_left_of_an_earlier_run():
    assert lines_of([], RowRange(start=500, stop=500)) == [
        "500 of 500 rows (100%), in 0 s"
    ]


def test_compiling_on_each_replica_does_not_spoil_the_rate():
    compiling = [(100, 29, "compile"), (100, 29, "compile")]
    first, second, *_ = lines_of(
        compiling + [(100, 1)] * 30, RowRange(stop=10_000), num_replicas=2
    )
    assert first == "200 of 10,000 rows (2%), input-bound"
    assert "3,200 of 10,000 rows (32%), 100 rows/s, 1 min 8 s left" in second


def test_compiling_again_and_again_is_part_of_the_pace():
    steps = [(100, 10, "compile")] * 7
    lines = lines_of(steps, RowRange(stop=1000))
    assert lines[1].startswith("600 of 1,000 rows (60%), 10 rows/s, 40 s left")


def test_lines_reach_a_file_at_once_without_control_characters(tmp_path):
    with open(tmp_path / "log", "w") as log:
        passing = Run().show([(10, 31)] * 3, RowRange(stop=30), stream=log)
        next(passing), next(passing)
        written = (tmp_path / "log").read_text()
        assert written.startswith("10 of 30 rows (33%)")
        list(passing)
    written = (tmp_path / "log").read_text()
    assert written.endswith("\n") and written.replace("\n", "").isprintable()


@pytest.mark.parametrize(
    ("seconds", "long", "short"),
    [
        (0.4, "0 s", "0:00:00"),
        (59.6, "1 min 0 s", "0:01:00"),
        (192, "3 min 12 s", "0:03:12"),
        (7_500, "2 h 5 min", "2:05:00"),
        (86_400, "1 d 0 h", "1 day, 0:00:00"),
        (273_599, "3 d 3 h", "3 days, 3:59:59"),
    ],
)
def test_durations(seconds, long, short):
    assert duration(seconds) == long
    assert short_duration(seconds) == short
