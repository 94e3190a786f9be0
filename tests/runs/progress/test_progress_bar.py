"""The bar, read from a real terminal."""

import io
import re
import sys
import threading

import numpy as np
import pytest

from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.figures import RowRange
from keras_mgpu_strategy.runs.progress import show_progress
from keras_mgpu_strategy.types import HostBatch
from tests.runs.progress.watching import Run

HIDE, SHOW = "\x1b[?25l", "\x1b[?25h"


def test_what_a_reader_sees_at_the_end(terminal):
    run = Run().show([(1000, 1)] * 8, RowRange(stop=8000), 1, stream=terminal.stream)
    for _ in run:
        terminal.read()
    assert re.fullmatch(
        "predicting ━+ 8,000/8,000 1,000 rows/s in 0:00:08 input-bound",
        terminal.rows()[0],
    )
    assert terminal.rows()[1:] == [""]  # the prompt is on a line of its own


def test_what_a_reader_sees_during_a_run(terminal):
    rows = RowRange(first=1000, start=9000, stop=11_000)
    options = {"stream": terminal.stream}
    passing = Run().show([(100, 10)] * 4, rows, 1, **options)
    next(passing)
    assert re.fullmatch(r"predicting [━╸╺]+ 8,000/10,000 +", terminal.rows()[0] + " ")
    next(passing), next(passing)
    assert re.fullmatch(
        r"predicting [━╸╺]+ 8,200/10,000 10 rows/s eta 0:03:00 input-bound",
        terminal.rows()[0],
    )
    passing.close()


def test_an_unknown_total(terminal):
    passing = Run().show([(1000, 1)] * 3, RowRange(), 1, stream=terminal.stream)
    next(passing), next(passing), next(passing)
    assert re.search("━ 2,000 rows 1,000 rows/s +input-bound$", terminal.rows()[0])
    list(passing)
    assert "━ 3,000/3,000 1,000 rows/s in 0:00:03" in terminal.rows()[0]


def test_ten_million_rows_fit_into_80_columns(terminal, monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")
    steps = [(5_000_000, 100)] * 2
    passing = Run().show(steps, RowRange(stop=10**7), 1, stream=terminal.stream)
    next(passing), next(passing)
    (line,) = terminal.rows()
    assert len(line) <= 80
    columns = "5,000,000/10,000,000 50,000 rows/s eta 0:01:40 input-bound"
    assert re.fullmatch(f"predicting [━╸╺]{{4,}} {columns}", line)
    list(passing)


@pytest.mark.parametrize("steps", [[], [(0, 1)]])
@pytest.mark.parametrize("stop", [0, None])
def test_no_rows(steps, stop, terminal):
    list(Run().show(steps, RowRange(stop=stop), 1, stream=terminal.stream))
    assert re.fullmatch(f"predicting ━+ 0/0 +in 0:00:0{len(steps)}", terminal.rows()[0])


def test_the_cursor_is_hidden_during_a_run_and_restored(terminal):
    passing = Run().show([(1, 1)] * 3, RowRange(stop=3), 1, stream=terminal.stream)
    assert terminal.read() == ""  # nothing before the run begins
    next(passing)
    assert HIDE in terminal.read() and SHOW not in terminal.read()
    passing.close()
    assert terminal.read().rfind(SHOW) > terminal.read().rfind(HIDE)
    assert terminal.rows()[0].startswith("predicting ━")


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_an_error_arrives_after_the_end_of_the_bar(error, terminal):
    def failing():
        yield HostBatch(0, np.zeros((5, 1)))
        raise error("the run's own")

    rows = RowRange(stop=10)
    passing = show_progress(failing(), rows, StageClock(1), stream=terminal.stream)
    with pytest.raises(error, match="the run's own"):
        list(passing)
    assert terminal.read().rfind(SHOW) > terminal.read().rfind(HIDE)
    assert " 5/10 " in terminal.rows()[0]


def test_what_is_printed_during_a_run_is_above_the_bar(terminal, monkeypatch):
    monkeypatch.setattr(sys, "stdout", terminal.stream)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    for batch in Run().show([(1, 1)] * 2, RowRange(stop=2), "auto"):
        print("row", batch.start)
        print("warned", file=sys.stderr)
    assert terminal.rows()[:4] == ["row 0", "warned", "row 1", "warned"]
    assert terminal.rows()[4].startswith("predicting ━")
    assert sys.stdout is sys.stderr is terminal.stream


def test_what_is_sent_to_a_file_stays_there(terminal, monkeypatch):
    out = io.StringIO()
    monkeypatch.setattr(sys, "stdout", out)
    monkeypatch.setattr(sys, "stderr", terminal.stream)
    for batch in Run().show([(1, 1)] * 2, RowRange(stop=2), 1):
        print("row", batch.start)
    assert out.getvalue() == "row 0\nrow 1\n"
    assert "row 0" not in terminal.read()


def test_a_file_gets_only_the_last_state():
    log = io.StringIO()
    list(Run().show([(1000, 1)] * 8, RowRange(stop=8000), 1, stream=log))
    lines = log.getvalue().splitlines()
    assert [line for line in lines if line.strip()] == lines[:1]
    assert "8,000/8,000 1,000 rows/s" in lines[0]
    assert lines[0].isprintable()


def test_a_bar_in_a_thread(terminal):
    run = Run().show([(5, 1)] * 4, RowRange(stop=20), "auto", stream=terminal.stream)
    passed = []
    thread = threading.Thread(target=lambda: passed.extend(run))
    thread.start()
    thread.join()
    assert len(passed) == 4
    assert " 20/20 " in terminal.rows()[0]
