"""Where progress is shown, and streams that are of no use."""

import contextlib
import io
import os
import sys

import pytest

from keras_mgpu_strategy.progress import RowRange
from tests.progress.watching import Run


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
    assert (out, err) == (
        "",
        "10 of 10 rows (100%), 10 rows/s, in 1 s, input-bound\n",
    )


@pytest.mark.parametrize("verbose", [3, "yes", None])
def test_another_value_is_refused_at_once(verbose):
    with pytest.raises(ValueError, match=rf"verbose={verbose!r}. Expected 0"):
        Run().show([], RowRange(), verbose)


@contextlib.contextmanager
def no_stream(terminal):
    del terminal
    yield None


@contextlib.contextmanager
def closed_stream(terminal):
    terminal.stream.close()
    yield terminal.stream


@contextlib.contextmanager
def hung_up(terminal):
    terminal.hang_up()
    yield terminal.stream


@contextlib.contextmanager
def failing(stream):
    """Closes a stream that cannot put down what it still holds."""
    yield stream
    with contextlib.suppress(OSError):
        stream.close()


@contextlib.contextmanager
def broken_pipe(terminal):
    del terminal
    reading, writing = os.pipe()
    os.close(reading)
    with failing(os.fdopen(writing, "w")) as stream:
        yield stream


@contextlib.contextmanager
def full_disk(terminal):
    del terminal
    with failing(open("/dev/full", "w")) as stream:
        yield stream


@contextlib.contextmanager
def ascii_only(terminal):
    del terminal
    yield io.TextIOWrapper(io.BytesIO(), encoding="ascii")


STREAMS = [no_stream, closed_stream, hung_up, broken_pipe, full_disk, ascii_only]


@pytest.mark.parametrize("verbose", [1, 2, "auto"])
@pytest.mark.parametrize("broken", STREAMS)
def test_no_stream_ends_a_run(broken, verbose, terminal, monkeypatch):
    with broken(terminal) as stream:
        monkeypatch.setattr(sys, "stderr", stream)
        passed = list(Run().show([(5, 31)] * 3, RowRange(stop=15), verbose))
        monkeypatch.undo()
    assert [batch.start for batch in passed] == [0, 5, 10]


def test_a_terminal_may_go_away_in_the_middle(terminal):
    passing = Run().show([(5, 1)] * 4, RowRange(stop=20), 1, stream=terminal.stream)
    next(passing), next(passing)
    assert " 5/20 " in terminal.rows()[0]
    terminal.hang_up()
    assert [batch.start for batch in passing] == [10, 15]
