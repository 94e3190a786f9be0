"""Several threads and several Predictors at once: each call gets its own rows."""

import time

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests import helpers
from tests.lifetime import calling

NUM_CALLERS = 6
NUM_ROWS = (0, 5, 40, 300)


def in_every_way(predictor, caller):
    """One call in each way; each caller starts with a different one."""
    for call in range(caller, caller + len(calling.WAYS)):
        num_rows = NUM_ROWS[(caller + call) % len(NUM_ROWS)]
        rows = calling.rows_of(caller, num_rows, 2 + call % 3)
        calling.WAYS[call % len(calling.WAYS)](predictor, rows)


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_several_threads_call_one_predictor(num_replicas, engine, strategies):
    with strategies[num_replicas].scope():
        model = helpers.doubling_model(num_columns=None)
        predictor = mgpu.Predictor(model, engine=engine)
    with helpers.no_thread_left():
        calling.at_once(
            [
                lambda caller=caller: in_every_way(predictor, caller)
                for caller in range(NUM_CALLERS)
            ]
        )


def test_several_predictors_are_made_and_called_at_once(strategies):
    model = helpers.doubling_model(num_columns=None)

    def make_and_call(caller):
        engine = ("threads", "mirrored")[caller % 2]
        with strategies[1 + caller // 2].scope():
            predictor = mgpu.Predictor(model, engine=engine)
        in_every_way(predictor, caller)

    with helpers.no_thread_left():
        calling.at_once(
            [
                lambda caller=caller: make_and_call(caller)
                for caller in range(NUM_CALLERS)
            ]
        )


class BuiltSlowly(keras.layers.Layer):
    def build(self, input_shape):
        time.sleep(0.1)
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return 2 * inputs * self.factor + 1


def test_a_model_is_built_once_if_several_threads_call_it_first(engine, strategies):
    with strategies[2].scope():
        predictor = mgpu.Predictor(keras.Sequential([BuiltSlowly()]), engine=engine)
    rows = calling.rows_of(1, 20)
    calling.at_once([lambda: calling.by_predict(predictor, rows)] * 4)
    assert len(predictor.model.weights) == 1


def test_each_run_into_a_file_has_its_own_report(predictor, tmp_path):
    reports = {}

    def write(caller):
        rows = calling.rows_of(caller, 100 + caller)
        path = tmp_path / f"{caller}.npy"
        reports[caller] = predictor.predict_to(path, rows, method="predict", verbose=0)
        calling.check(np.load(path), rows)

    calling.at_once([lambda caller=caller: write(caller) for caller in range(4)])
    assert {caller: report.rows for caller, report in reports.items()} == {
        caller: 100 + caller for caller in range(4)
    }
    # That of whichever run ended last.
    assert predictor.report in reports.values()
