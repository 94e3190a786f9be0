"""A live kernel whose runs are interrupted, and which then runs the next cell."""

import re

import pytest

from tests.notebooks.kernel import Kernel

SET_UP = """
# What TensorFlow writes beside Python might arrive in a later cell.
import os; os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import numpy as np
from tests.notebooks.paced import Paced, predictor, results_of, rows_of
p, few = predictor(), rows_of(64)
"""
EXACT = """
np.testing.assert_array_equal(p.predict(few), results_of(64))
assert p.report.rows == 64
"""


@pytest.fixture(scope="module")
def live(tmp_path_factory):
    with Kernel(tmp_path_factory.mktemp("live")) as live:
        live.run(SET_UP)
        yield live


def done(cell):
    """How many rows the bar says are done."""
    if not cell.displays:
        return 0
    return int(re.search(r"([\d,]+) of", shown(cell))[1].replace(",", ""))


def shown(cell):
    """The line as it is now, of the only output."""
    (states,) = cell.displays
    return states[-1]["text/plain"]


def interrupted(live, code):
    """Interrupts a cell once rows are done; returns it, ended."""
    cell = live.start(code).until(lambda cell: done(cell) > 0)
    live.interrupt()
    cell.end()
    assert cell.error["ename"] == "KeyboardInterrupt"
    assert re.search(r"\(\d+%\), [\d,.]+ rows/s, stopped after \d+ s,", shown(cell))
    assert (cell.out, cell.err) == ("", "")
    return cell


@pytest.mark.parametrize("method", ["predict(", "evaluate(y=np.zeros((99_999, 2)), x="])
@pytest.mark.parametrize("verbose", ["1", "'auto'"])
def test_the_next_cell_runs_after_an_interrupt(method, verbose, live):
    rows = "Paced(99_999, 4000)"
    interrupted(live, f"p.{method}{rows}, batch_size=64, verbose={verbose})")
    live.run(EXACT)


def test_a_file_is_resumed_after_an_interrupt(live):
    code = "p.predict_to('out.npy', Paced({}), 64, method='predict', resume=True)"
    cell = interrupted(live, code.format("20_000, 4000"))
    assert "resume=True" in "".join(cell.error["traceback"])
    cell = live.run(f"report = {code.format('20_000, 1e6')}; print(report.rows)")
    assert 0 < int(cell.out) < 20_000
    written = "np.load('out.npy')"
    live.run(f"np.testing.assert_array_equal({written}, results_of(20_000))")
