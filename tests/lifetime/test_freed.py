"""A deleted Predictor frees its variables, steps and threads."""

import gc
import threading
import weakref

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests import helpers
from tests.lifetime import calling


class Weighted(keras.layers.Layer):
    """2 x + 1, computed with variables."""

    def build(self, input_shape):
        self.factor = self.add_weight(shape=(), initializer="ones")

    def call(self, inputs):
        return 2 * inputs * self.factor + 1


def weighted_model():
    return keras.Sequential([keras.Input((2,)), Weighted()])


def in_scope(strategy, engine, tmp_path):
    with strategy.scope():
        return mgpu.Predictor(weighted_model(), engine=engine)


def rebuilt(strategy, engine, tmp_path):
    model = weighted_model()
    with strategy.scope():
        return mgpu.Predictor(model, engine=engine)


def loaded(strategy, engine, tmp_path):
    weighted_model().save(tmp_path / "weighted.keras")
    with strategy.scope():
        return mgpu.load(
            tmp_path / "weighted.keras",
            custom_objects={"Weighted": Weighted},
            engine=engine,
        )


def held_by(predictor):
    """Weak references to what must be freed with a Predictor."""
    compiler = predictor._runner.backend.compiler
    things = [predictor, predictor.model, compiler, *compiler._made.values()]
    things += [variable.value for variable in predictor.model.variables]
    assert len(things) > 4
    return [weakref.ref(thing) for thing in things]


def alive(references):
    gc.collect()
    return [type(thing()).__name__ for thing in references if thing() is not None]


@pytest.mark.parametrize("make", [in_scope, rebuilt, loaded])
def test_a_deleted_predictor_frees_all_that_it_held(make, engine, strategies, tmp_path):
    with helpers.no_thread_left():
        predictor = make(strategies[2], engine, tmp_path)
        for way in calling.WAYS:
            way(predictor, calling.rows_of(1, 30))
        held = held_by(predictor)
        del predictor
    assert alive(held) == []


def test_a_deleted_model_frees_its_drop_in_predictor():
    model = weighted_model()
    mgpu.predict_proba(model, np.full((5, 2), -0.25, np.float32))
    kept = vars(model)["_keras_mgpu_strategy_predictor"][0]
    held = [weakref.ref(model), *held_by(kept)]
    del model, kept
    assert alive(held) == []


def test_it_can_be_deleted_in_another_thread(engine, strategies):
    holder = [in_scope(strategies[2], engine, None)]
    calling.by_predict(holder[0], calling.rows_of(0, 50))
    batches = holder[0].predict_iter(calling.rows_of(1, 5000), 8)
    held = [*held_by(holder[0]), weakref.ref(batches)]
    next(batches)
    holder.append(batches)
    del batches
    with helpers.no_thread_left():
        thread = threading.Thread(target=holder.clear)
        thread.start()
        thread.join(30)
    assert not holder
    assert alive(held) == []


def test_an_iterator_continues_without_its_predictor(engine, strategies):
    predictor = in_scope(strategies[2], engine, None)
    rows = calling.rows_of(1, 500)
    batches = predictor.predict_iter(rows, 8)
    del predictor
    gc.collect()
    calling.check(helpers.joined(batches), rows)


def test_a_run_releases_its_rows(predictor):
    rows = calling.rows_of(1, 200)
    held = weakref.ref(rows)
    calling.by_predict(predictor, rows)
    calling.by_iterator(predictor, rows)
    del rows
    gc.collect()
    assert held() is None
