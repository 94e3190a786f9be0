"""The bar in a kernel: when and how it is drawn, and that it breaks no run."""

import sys
import threading

import IPython
import IPython.display
import numpy as np
import pytest

from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.figures import RowRange
from keras_mgpu_strategy.runs.progress import show_progress
from keras_mgpu_strategy.system.kernel import in_kernel
from keras_mgpu_strategy.types import HostBatch
from tests.runs.progress.watching import Run


class Shell:
    """IPython's shell in a kernel; in a terminal `kernel` is missing or None."""

    def __init__(self, **attributes):
        self.__dict__ |= attributes


class Screen:
    """Replaces IPython's display: the states of each output, as they were drawn."""

    def __init__(self):
        self.outputs = []
        self.error = None

    def display(self, data, *, raw, display_id):
        assert raw and display_id
        self.outputs.append([])
        self.update(data, raw=raw)
        return self

    def update(self, data, *, raw):
        assert raw
        if self.error is not None:
            raise self.error
        self.outputs[-1].append(data)

    @property
    def lines(self):
        (states,) = self.outputs
        return [state["text/plain"] for state in states]


@pytest.fixture
def screen(monkeypatch):
    screen = Screen()
    monkeypatch.setattr(IPython, "get_ipython", lambda: Shell(kernel=object()))
    monkeypatch.setattr(IPython.display, "display", screen.display)
    return screen


@pytest.mark.parametrize(
    ("shell", "expected"),
    [
        (Shell(kernel=object()), True),
        (Shell(kernel=None), False),
        (Shell(), False),
        (None, False),
    ],
)
def test_what_a_kernel_is(shell, expected, monkeypatch):
    monkeypatch.setattr(IPython, "get_ipython", lambda: shell)
    assert in_kernel() is expected


def test_ipython_that_is_not_imported_or_only_half_is_no_kernel(monkeypatch):
    monkeypatch.setitem(sys.modules, "IPython", type(sys)("IPython"))
    assert not in_kernel()
    monkeypatch.delitem(sys.modules, "IPython")
    assert not in_kernel()
    assert "IPython" not in sys.modules


def test_its_states(screen, capsys):
    list(Run().show([(1000, 0.5)] * 8, RowRange(stop=8000), "auto"))
    first, *_, last_but_one, last = screen.lines
    # Nothing is shown in the first second.
    assert first == (
        "█████░░░░░░░░░░░░░░░ 2,000 of 8,000 rows (25%), 2,000 rows/s, 3 s left, "
        "input-bound"
    )
    assert last_but_one.endswith("2,000 rows/s, 0 s left, input-bound")
    assert last.endswith(" 8,000 rows (100%), 2,000 rows/s, in 4 s, input-bound")
    assert len(screen.lines) == 8
    assert capsys.readouterr() == ("", "")


def test_its_html(screen):
    passing = Run().show([(1000, 2)] * 4, RowRange(stop=4000), "auto")
    next(passing), next(passing)
    html = screen.outputs[0][0]["text/html"]
    assert '<progress max="1" value="0.2500"' in html
    line = "1,000 of 4,000 rows (25%), 500 rows/s, 6 s left, input-bound"
    assert f"> {line}</div>" in html
    assert "\n" not in html and "color" not in html and "<script" not in html
    passing.close()


@pytest.mark.parametrize(("verbose", "expected"), [("auto", 0), (1, 2), (0, 0)])
def test_a_run_of_less_than_a_second(verbose, expected, screen, capsys):
    list(Run().show([(10, 0.1)] * 2, RowRange(stop=20), verbose))
    assert sum(map(len, screen.outputs)) == expected
    assert capsys.readouterr() == ("", "")


def test_lines_are_wanted(screen, capsys):
    list(Run().show([(10, 31)], RowRange(stop=10), 2))
    assert screen.outputs == []
    assert capsys.readouterr().err.count("\n") == 2


def test_at_most_four_states_a_second(screen):
    list(Run().show([(1, 0.001)] * 10_000, RowRange(stop=10_000), 1))
    assert 30 <= len(screen.lines) <= 42


def test_rows_of_unknown_number(screen):
    list(Run().show([(1000, 2)] * 2, RowRange(), "auto"))
    states = screen.outputs[0]
    assert states[0] == {"text/plain": "1,000 rows, 500 rows/s, input-bound"}
    assert states[-1]["text/plain"].startswith("█" * 20 + " 2,000 of 2,000 rows (100%)")


def test_no_rows(screen):
    list(Run().show([], RowRange(stop=0), 1))
    assert screen.lines[-1] == "█" * 20 + " 0 of 0 rows (100%), in 0 s"


@pytest.mark.parametrize("error", [OSError, KeyboardInterrupt, SystemExit])
def test_the_last_state_of_a_run_that_fails(error, screen):
    def failing():
        yield HostBatch(0, np.zeros((5, 1)))
        raise error("the run's own")

    with pytest.raises(error, match="the run's own"):
        list(show_progress(failing(), RowRange(stop=10), StageClock(1), 1))
    assert screen.lines[-1].startswith("█" * 10 + "░" * 10 + " 5 of 10 rows (50%), ")
    assert "stopped after 0 s" in screen.lines[-1]


@pytest.mark.parametrize("first", [True, False])
def test_an_error_of_the_display_ends_only_the_bar(first, screen):
    passing = Run().show([(10, 1)] * 5, RowRange(stop=50), 1)
    if not first:
        next(passing), next(passing)
    screen.error = RuntimeError("the front end is gone")
    assert [batch.start for batch in passing][-1] == 40
    assert sum(map(len, screen.outputs)) == (0 if first else 2)


def test_in_a_thread(screen):
    run = Run().show([(5, 1)] * 4, RowRange(stop=20), "auto")
    thread = threading.Thread(target=list, args=[run])
    thread.start()
    thread.join()
    assert " 20 of 20 rows (100%)" in screen.lines[-1]
