"""After runs that end early, the Predictor can be used again, and nothing is left."""

import gc
import itertools
import threading

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines import worker_threads
from tests import helpers
from tests.lifetime import calling


@pytest.fixture
def endless():
    """Makes endless inputs: an array of many rows, and a generator."""
    closed = []

    def batches():
        try:
            yield from helpers.numbered_batches(50)
        finally:
            closed.append(True)

    yield {"array": lambda: helpers.numbered_rows(50_000), "generator": batches}
    gc.collect()
    assert len(closed) in (0, 1)


def closed(batches):
    next(batches)
    batches.close()
    assert list(batches) == []


def left_by_break(batches):
    for _ in batches:
        break


def forgotten(batches):
    next(batches)


def forgotten_in_a_cycle(batches):
    next(batches)
    cycle = [batches]
    cycle.append(cycle)


def left_by_an_error(batches):
    with pytest.raises(LookupError):
        for _ in batches:
            raise LookupError("the consumer's own")


def never_begun(batches):
    del batches


ENDS = [
    closed,
    left_by_break,
    forgotten,
    forgotten_in_a_cycle,
    left_by_an_error,
    never_begun,
]


@pytest.mark.parametrize("end", ENDS)
def test_an_iterator_can_be_abandoned(end, endless, predictor):
    with calling.nothing_left(predictor):
        end(predictor.predict_iter(endless["array"](), 8))
    with calling.nothing_left(predictor):
        end(predictor.predict_iter(endless["generator"](), 8))


def test_so_can_one_over_batches(endless, predictor):
    with calling.nothing_left(predictor):
        forgotten(predictor.predict_batches(endless["generator"]()))


def test_it_can_be_abandoned_after_any_batch(predictor):
    rows = calling.rows_of(1, 300)
    number_of_batches = len(list(predictor.predict_iter(rows, 8)))
    for taken in range(number_of_batches + 1):
        with helpers.no_thread_left():
            batches = predictor.predict_iter(rows, 8)
            for batch in itertools.islice(batches, taken):  # a faster run has fewer
                calling.check(batch.outputs, rows[batch.start : batch.stop])
            del batches
    calling.by_predict(predictor, rows)


class Fails(keras.callbacks.Callback):
    def __init__(self, step, error):
        super().__init__()
        self.step, self.error = step, error

    def on_predict_batch_end(self, batch, logs=None):
        if batch == self.step:
            raise self.error


def failing_batches(step, error):
    for number, rows in enumerate(helpers.numbered_batches(20)):
        if number == step:
            raise error
        yield rows


@pytest.mark.parametrize("error", [LookupError("own"), KeyboardInterrupt()])
def test_an_error_of_the_users_code_ends_all_threads_at_once(error, predictor):
    """Even while the error is held, with all of its frames."""
    rows = helpers.numbered_rows(300)
    for step in range(0, 15, 2):
        with calling.nothing_left(predictor), pytest.raises(type(error)) as raised:
            predictor.predict(rows, 16, verbose=0, callbacks=[Fails(step, error)])
        with calling.nothing_left(predictor), pytest.raises(type(error)) as again:
            predictor.predict(failing_batches(step, error), verbose=0)
        assert raised.value is again.value is error


class FailsFrom(keras.layers.Layer):
    """Fails on row numbers starting at a given one."""

    row = 100_000.0

    def call(self, inputs):
        tf.debugging.assert_less(inputs, self.row, "refused by the model")
        return tf.identity(inputs)


def test_an_error_of_the_model_leaves_it_usable(engine, strategies):
    with strategies[2].scope():
        model = helpers.doubling_model(FailsFrom())
        predictor = mgpu.Predictor(model, engine=engine)
    for row in range(0, 400, 50):
        rows = helpers.numbered_rows(500)
        rows[row] = FailsFrom.row
        with (
            calling.nothing_left(predictor),
            pytest.raises(tf.errors.InvalidArgumentError, match="refused") as raised,
        ):
            predictor.predict(rows, 16, verbose=0)
        assert "rows" in "".join(getattr(raised.value, "__notes__", []))


def chunks():
    """Batches that are read, and run by two replicas, one at a time: 4 MiB each."""
    yield from helpers.numbered_batches(64, num_columns=2**14)


def begun(predictor, batches):
    results = predictor.predict_iter(batches, 2 * 64)
    next(results)
    return results


def test_the_garbage_collector_may_end_a_run_in_a_thread_of_that_run(
    predictor, monkeypatch
):
    # That thread waits for itself, which the run cannot know: not for long.
    monkeypatch.setattr(worker_threads, "_MOST_SECONDS", 0.5)
    is_forgotten, is_collected = threading.Event(), threading.Event()

    def batches():
        for number, rows in enumerate(chunks()):
            yield rows
            if number == 3:
                assert is_forgotten.wait(30)
                gc.collect()
                is_collected.set()

    def begin():
        cycle = [begun(predictor, batches())]
        cycle.append(cycle)

    with calling.nothing_left(predictor):
        begin()
        is_forgotten.set()
        assert is_collected.wait(30)


def test_a_generator_that_waits_does_not_hold_up_its_consumer(predictor, monkeypatch):
    monkeypatch.setattr(worker_threads, "_MOST_SECONDS", 0.5)
    waits, may_continue, is_closed = (threading.Event() for _ in range(3))

    def batches():
        try:
            for number, rows in enumerate(chunks()):
                if number == 3:
                    waits.set()
                    may_continue.wait()
                yield rows
        finally:
            is_closed.set()

    with calling.nothing_left(predictor):
        left = begun(predictor, batches())
        assert waits.wait(30)  # or there would be nothing that holds its consumer up
        left.close()
        calling.by_predict(predictor, calling.rows_of(2, 100))
        assert not is_closed.is_set()
        may_continue.set()
        assert is_closed.wait(30)


def test_runs_of_one_predictor_may_be_left_and_finished_in_any_order(predictor):
    # So many that no device is fast enough to take all of them at once.
    rows = [calling.rows_of(caller, 40_000) for caller in range(4)]
    with calling.nothing_left(predictor):
        runs = [predictor.predict_iter(mine, 8) for mine in rows]
        begun = [next(run) for run in runs]
        runs[2].close()
        for caller in (3, 0):
            calling.check(helpers.joined([begun[caller], *runs[caller]]), rows[caller])
        assert next(runs[1]).start == begun[1].stop
        del runs
    np.testing.assert_array_equal(begun[0].outputs[0], calling.doubled(rows[0][0]))
