"""Showing progress changes neither the batches of a run nor its end."""

import io
import weakref

import pytest

from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.runs.figures import RowRange
from keras_mgpu_strategy.runs.progress import show_progress
from tests.runs.progress.watching import Run


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_batches_pass_as_they_are(verbose, terminal):
    batches = list(Run().batches([(3, 1), (0, 1), (7, 1)]))
    clock, stream = StageClock(1), terminal.stream
    passed = show_progress(batches, RowRange(), clock, verbose, stream=stream)
    assert [id(batch) for batch in passed] == [id(batch) for batch in batches]


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_closing_ends_the_run(verbose, terminal):
    run, is_closed = Run(), []

    def batches():
        try:
            yield from run.batches([(3, 1)] * 3)
        finally:
            is_closed.append(True)

    passing = show_progress(
        batches(), RowRange(), run.clock, verbose, stream=terminal.stream
    )
    next(passing)
    passing.close()
    assert is_closed


def test_a_batch_counts_once_the_next_is_requested():
    log = io.StringIO()
    passing = Run().show([(5, 1)] * 4, RowRange(stop=20), 2, stream=log)
    next(passing), next(passing)
    passing.close()
    assert log.getvalue().startswith("5 of 20 rows (25%)")


@pytest.mark.parametrize("verbose", [0, 1, 2])
def test_no_batch_is_kept(verbose, terminal):
    passing = Run().show([(5, 1)] * 3, RowRange(), verbose, stream=terminal.stream)
    first = weakref.ref(next(passing).outputs)
    second = weakref.ref(next(passing).outputs)
    assert first() is None and second() is not None
    passing.close()
    assert second() is None


class Counting(StageClock):
    """Counts how often its report is read."""

    num_reports = 0

    def report(self):
        self.num_reports += 1
        return super().report()


@pytest.mark.parametrize("verbose", [1, 2])
def test_the_report_is_read_only_a_few_times_a_second(verbose, terminal):
    run = Run()
    run.clock = Counting(1)
    for _ in run.show(
        [(1, 1e-4)] * 10_000, RowRange(), verbose, stream=terminal.stream
    ):
        terminal.read()
    assert 5 <= run.clock.num_reports <= 6  # the first and the last one among them
