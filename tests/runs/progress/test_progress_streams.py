"""Where progress is shown, and streams that cannot be used."""

import sys

import pytest

from keras_mgpu_strategy.runs.figures import RowRange
from tests import streams
from tests.runs.progress.watching import Run


def test_silent(terminal):
    passing = Run().show([(1, 60)] * 2, RowRange(), 0, stream=terminal.stream)
    assert len(list(passing)) == 2
    assert terminal.read() == ""


def test_auto_is_a_bar_on_a_terminal(terminal):
    list(Run().show([(1, 60)], RowRange(), "auto", stream=terminal.stream))
    assert "━" in terminal.read()


def test_auto_is_lines_elsewhere_and_standard_error(capsys):
    list(Run().show([(10, 1)], RowRange(stop=10), "auto"))
    out, err = capsys.readouterr()
    assert (out, err) == ("", "10 of 10 rows (100%), 10 rows/s, in 1 s, input-bound\n")


@pytest.mark.parametrize("verbose", [3, "yes", None])
def test_another_value_is_refused_at_once(verbose):
    with pytest.raises(ValueError, match=rf"verbose={verbose!r}. Expected 0"):
        Run().show([], RowRange(), verbose)


@pytest.mark.parametrize("broken", streams.BROKEN)
def test_no_stream_ends_a_run(broken, monkeypatch):
    for verbose in (1, 2, "auto"):
        with streams.BROKEN[broken]() as stream:
            monkeypatch.setattr(sys, "stderr", stream)
            passed = list(Run().show([(5, 31)] * 3, RowRange(stop=15), verbose))
            monkeypatch.undo()
        assert [batch.start for batch in passed] == [0, 5, 10]


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
def test_nor_does_a_terminal_that_hung_up(verbose, terminal):
    terminal.hang_up()
    run = Run().show([(5, 31)] * 3, RowRange(stop=15), verbose, stream=terminal.stream)
    assert [batch.start for batch in run] == [0, 5, 10]


def test_an_object_that_can_only_write_is_shown_lines():
    stream = streams.OnlyWrites()
    list(Run().show([(5, 31)] * 2, RowRange(stop=10), "auto", stream=stream))
    assert stream.text.count("\n") == 3


def test_a_terminal_may_go_away_in_the_middle(terminal):
    passing = Run().show([(5, 1)] * 4, RowRange(stop=20), 1, stream=terminal.stream)
    next(passing), next(passing)
    assert " 5/20 " in terminal.rows()[0]
    terminal.hang_up()
    assert [batch.start for batch in passing] == [10, 15]
