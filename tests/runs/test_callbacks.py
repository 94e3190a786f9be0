"""Callbacks and bars, compared with those of Keras' own `Model.predict`."""

import os
import sys

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.runs.callbacks import (
    check_verbose,
    with_callbacks,
    with_progress,
)
from tests import helpers, streams


class Recorder(keras.callbacks.Callback):
    """Records each call with its arguments."""

    def __init__(self):
        super().__init__()
        self.events = []

    def on_predict_begin(self, logs=None):
        self.events.append(("begin", logs))

    def on_predict_batch_begin(self, batch, logs=None):
        self.events.append(("batch begin", batch, logs))

    def on_predict_batch_end(self, batch, logs=None):
        outputs = np.array(logs["outputs"]).tolist()
        self.events.append(("batch end", batch, sorted(logs), outputs))

    def on_predict_end(self, logs=None):
        self.events.append(("end", logs))


class StopAfter(keras.callbacks.Callback):
    """Ends the run after a batch."""

    def __init__(self, batch):
        super().__init__()
        self.batch = batch

    def on_predict_batch_end(self, batch, logs=None):
        if batch == self.batch:
            self.model.stop_predicting = True


@pytest.fixture(scope="module")
def plain():
    return helpers.doubling_model()


@pytest.fixture(scope="module", params=["threads", "mirrored"])
def predictor(request, plain, strategies):
    with strategies[2].scope():
        return mgpu.Predictor(plain, engine=request.param)


def on_both(plain, predictor, num_rows, batch_size, *more):
    """The recorder and result of Keras, then ours."""
    rows = helpers.numbered_rows(num_rows)
    both = []
    for predict in (plain.predict, predictor.predict):
        recorder = Recorder()
        callbacks = [recorder, *more]
        result = predict(rows, batch_size=batch_size, verbose=0, callbacks=callbacks)
        both.append((recorder, result))
    return both


@pytest.mark.parametrize(("num_rows", "batch_size"), [(10, 4), (8, 4), (3, 4), (37, 6)])
def test_calls_are_those_of_keras(plain, predictor, num_rows, batch_size):
    (theirs, expected), (mine, result) = on_both(plain, predictor, num_rows, batch_size)
    assert mine.events == theirs.events
    assert mine.params == theirs.params
    assert mine.model is predictor.model
    np.testing.assert_array_equal(result, expected)


@pytest.mark.parametrize("batch", [0, 1, 3])
def test_stop_predicting_ends_the_run_as_in_keras(plain, predictor, batch):
    with helpers.no_thread_left():
        (theirs, expected), (mine, result) = on_both(
            plain, predictor, 16, 4, StopAfter(batch)
        )
    assert mine.events == theirs.events
    assert len(result) == 4 * (batch + 1)
    np.testing.assert_array_equal(result, expected)


def test_a_run_after_one_that_was_stopped_is_whole(predictor):
    rows = helpers.numbered_rows(16)
    predictor.predict(rows, 4, verbose=0, callbacks=[StopAfter(0)])
    recorder = Recorder()
    assert len(predictor.predict(rows, 4, verbose=0, callbacks=[recorder])) == 16
    assert recorder.events[-1] == ("end", {})


def test_batches_of_a_run_of_unknown_length(predictor):
    rows = helpers.numbered_rows(10)
    recorder = Recorder()
    batches = iter(helpers.in_batches(rows, [3, 3, 4]))
    result = predictor.predict(batches, 4, verbose=0, callbacks=recorder)
    np.testing.assert_array_equal(result, 2 * rows + 1)
    sizes = [len(event[-1]) for event in recorder.events if event[0] == "batch end"]
    assert sizes == [4, 4, 2]
    assert recorder.params["steps"] is None


def test_no_rows_begin_and_end(predictor):
    recorder = Recorder()
    rows = np.zeros((0, 2), np.float32)
    result = predictor.predict(rows, 4, verbose=0, callbacks=[recorder])
    assert result.shape == (0, 2)
    assert [event[0] for event in recorder.events] == ["begin", "end"]


def test_a_callback_list_is_used_as_it_is(plain):
    recorder = Recorder()
    listed = keras.callbacks.CallbackList([recorder], model=plain, mine=True)
    rows = helpers.numbered_rows(4)
    list(with_callbacks(helpers.host_batches(rows, [4]), listed, plain, 4, 2))
    assert recorder.params == {"mine": True}
    assert [event[0] for event in recorder.events].count("batch end") == 2


@pytest.mark.parametrize("sizes", [[1] * 7, [7], [2, 5], [6, 1]])
def test_chunks_of_any_size_become_global_batches(plain, sizes):
    rows = helpers.numbered_rows(7)
    recorder = Recorder()
    batches = helpers.host_batches(rows, sizes)
    result = list(with_callbacks(batches, [recorder], plain, 7, 3))
    assert [batch.num_rows for batch in result] == [3, 3, 1]
    np.testing.assert_array_equal(helpers.joined(result), rows)


@pytest.mark.parametrize("broken", streams.BROKEN)
def test_no_standard_output_ends_a_run(broken, predictor, monkeypatch):
    rows = helpers.numbered_rows(50)
    for verbose in ("auto", 1, 2):
        with streams.BROKEN[broken]() as stream:
            monkeypatch.setattr(sys, "stdout", stream)
            result = predictor.predict(rows, 4, verbose=verbose)
            monkeypatch.undo()
        np.testing.assert_array_equal(result, 2 * rows + 1)


@pytest.mark.parametrize("verbose", [1, 2])
def test_nor_does_one_that_fails_in_the_middle(verbose, predictor, monkeypatch):
    reading, writing = os.pipe()

    def batches():
        for number, rows in enumerate(np.split(helpers.numbered_rows(60), 30)):
            if number == 10:
                os.close(reading)
            yield rows

    with streams.failing(os.fdopen(writing, "w")) as stream:
        monkeypatch.setattr(sys, "stdout", stream)
        result = predictor.predict(batches(), 2, verbose=verbose)
        monkeypatch.undo()
    np.testing.assert_array_equal(result, 2 * helpers.numbered_rows(60) + 1)


def test_an_object_that_can_only_write_is_no_terminal(monkeypatch):
    monkeypatch.setattr(sys, "stdout", streams.OnlyWrites())
    assert check_verbose("auto") == 0


def test_an_error_of_a_callback_arrives_and_leaves_no_thread(predictor):
    class Broken(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            raise LookupError("the user's own")

    rows = helpers.numbered_rows(500)
    with helpers.no_thread_left(), pytest.raises(LookupError, match="the user's own"):
        predictor.predict(rows, 4, verbose=0, callbacks=[Broken()])


def test_keras_own_progress_bar_is_a_callback_as_well(predictor, capsys):
    bar = keras.callbacks.ProgbarLogger()
    predictor.predict(helpers.numbered_rows(10), 4, verbose=0, callbacks=[bar])
    assert bar.target == 3
    assert capsys.readouterr().out == ""


class TestProgress:
    @pytest.mark.parametrize("verbose", [1, 2])
    @pytest.mark.parametrize("num_rows", [10, None])
    def test_the_bar_ends_at_the_number_of_global_batches(
        self, num_rows, verbose, capsys
    ):
        batches = list(helpers.host_batches(helpers.numbered_rows(10), [3, 3, 3, 1]))
        assert list(with_progress(batches, num_rows, 4, verbose)) == batches
        last = capsys.readouterr().out.replace("\r", "\n").replace("\b", "")
        last = last.strip().splitlines()[-1]
        assert "3/3" in last
        assert "batch" in last

    def test_the_bar_moves_with_the_rows(self, capsys):
        batches = helpers.host_batches(helpers.numbered_rows(12), [4, 4, 4])
        passing = with_progress(batches, 12, 4, 1)
        next(passing), next(passing)
        assert "1/3" in capsys.readouterr().out

    def test_no_rows_fill_the_bar(self, capsys):
        batches = helpers.host_batches(helpers.numbered_rows(0), [0])
        assert len(list(with_progress(batches, 0, 4, 1))) == 1
        assert "1/1" in capsys.readouterr().out

    def test_silent(self, capsys):
        batches = list(helpers.host_batches(helpers.numbered_rows(4), [4]))
        assert list(with_progress(batches, 4, 4, 0)) == batches
        assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("verbose", "is_terminal", "expected"),
    [
        (0, True, 0),
        (1, False, 1),
        (2, False, 2),
        (True, False, 1),
        ("auto", True, 1),
        ("auto", False, 0),  # in a log file, a bar is noise
    ],
)
def test_verbose(verbose, is_terminal, expected, monkeypatch):
    monkeypatch.setattr("sys.stdout.isatty", lambda: is_terminal)
    assert check_verbose(verbose) == expected


@pytest.mark.parametrize("verbose", [3, -1, "yes", None])
def test_another_verbose_is_refused(verbose):
    with pytest.raises(
        ValueError, match=rf"verbose={verbose!r}. Expected 0 \(silent\)"
    ):
        check_verbose(verbose)
