"""What happens in processes that a Predictor's process forks.

Run by `tests.children`, in processes in which TensorFlow has not started.
"""

import gc
import multiprocessing
import os
import pathlib
import signal
import tempfile
import traceback
import warnings

import pytest

import keras_mgpu_strategy as mgpu
from tests import helpers
from tests.lifetime import calling

SECONDS = 180


def forked(function):
    """Runs a function in a forked process, and waits for its end.

    Returns:
        The exit code; -SIGALRM if it hung.
    """
    with warnings.catch_warnings():
        # Python 3.12 and later warn of forks with threads, which are tested here.
        warnings.simplefilter("ignore", DeprecationWarning)
        pid = os.fork()
    if pid == 0:
        signal.alarm(SECONDS)
        code = 1
        try:
            function()
            code = 0
        except BaseException:
            traceback.print_exc()
        finally:
            os._exit(code)
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])


def predictor_of(engine):
    with mgpu.scope(replicas_per_device=2):
        model = helpers.doubling_model(num_columns=None)
        return mgpu.Predictor(model, engine=engine)


def refused():
    return pytest.raises(RuntimeError, match="was forked from it.*load the model")


def a_forked_process_is_refused_and_its_parent_goes_on(engine):
    predictor = predictor_of(engine)
    rows = calling.rows_of(1, 500)
    calling.by_predict(predictor, rows)
    batches = predictor.predict_iter(rows, 8)
    begun, path = next(batches), pathlib.Path(tempfile.mkdtemp(), "rows.npy")
    not_begun = predictor.predict_iter(rows)

    def child():
        for way in calling.WAYS:
            with refused():
                way(predictor, rows)
        with refused():
            predictor.predict_to(path, rows, method="predict")
        with refused():
            next(not_begun)
        with refused():
            next(batches)
        assert list(batches) == []
        gc.collect()

    assert forked(child) == 0
    assert list(path.parent.iterdir()) == []
    calling.check(helpers.joined([begun, *batches]), rows)
    calling.check(helpers.joined(not_begun), rows)
    calling.by_predict(predictor, rows)


def a_forked_process_can_leave_an_iterator_behind(engine):
    predictor = predictor_of(engine)
    rows = calling.rows_of(1, 500)
    held = [predictor.predict_iter(rows, 8)]
    begun = next(held[0])
    for end in (lambda: held[0].close(), held.clear):
        assert forked(end) == 0
    calling.check(helpers.joined([begun, *held[0]]), rows)


def a_process_of_multiprocessing_is_refused(engine):
    predictor = predictor_of(engine)
    calling.by_predict(predictor, calling.rows_of(1, 50))

    def child():
        signal.alarm(SECONDS)
        with refused():
            predictor.predict(calling.rows_of(1, 50))

    process = multiprocessing.get_context("fork").Process(target=child)
    process.start()
    process.join()
    assert process.exitcode == 0


def a_process_forked_after_tensorflow_started_is_refused(engine):
    model, rows = helpers.doubling_model(), calling.rows_of(1, 50)
    path = pathlib.Path(tempfile.mkdtemp(), "model.keras")
    model.save(path)
    other = helpers.doubling_model()
    mgpu.predict_proba(other, rows, verbose=0)  # keeps its Predictor

    def first_uses():
        yield lambda: mgpu.Predictor(model, engine=engine)
        yield lambda: mgpu.load(path, engine=engine)
        yield lambda: mgpu.load(path, engine="ray")
        yield lambda: mgpu.predict_proba(model, rows)
        yield lambda: mgpu.predict_proba(other, rows)
        yield lambda: mgpu.make_parallel(model, 2)
        yield mgpu.scope().__enter__

    def child():
        for first_use in first_uses():
            with refused():
                first_use()
        assert forked(first_uses().__next__()) == 1  # nor in a fork of the fork

    assert forked(child) == 0


def a_process_forked_before_tensorflow_starts_loads_a_model(engine):
    def child():
        calling.by_predict(predictor_of(engine), calling.rows_of(1, 50))

    assert forked(child) == 0
