"""User-defined methods that override Keras' own: run, or refused by name."""

import types

import keras
import numpy as np
import pytest
from architectures import LIBRARIES

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models

ROWS = np.ones((7, 4), "float32")


def dense(lib, cls=None, **attributes):
    """A functional model of a class."""
    inputs = lib.Input((4,))
    cls = cls or lib.Model
    return cls(inputs, lib.layers.Dense(2, **attributes)(inputs))


class Doubles:
    """A mixin, as preprocessing is often written."""

    def predict(self, x, **kwargs):
        return super().predict(2 * x, **kwargs)


def subclass_of(lib, *names):
    """A class two levels below Keras' that overrides some methods."""

    def method(name):
        def run(self, *args, **kwargs):
            return getattr(lib.Model, name)(self, *args, **kwargs)

        return run

    base = type("Base", (lib.Model,), {name: method(name) for name in names})
    return type("Own", (base,), {})


@pytest.mark.parametrize("method", ["predict", "make_predict_function"])
@pytest.mark.parametrize("library", LIBRARIES)
def test_refuses_other_ways_to_predict(library, method, strategies):
    lib = LIBRARIES[library]
    model = dense(lib, subclass_of(lib, method))
    message = (
        rf"(?s)\(Own\) has its own `{method}`.*would not run.*Move.*{library}\.Mod"
    )
    with pytest.raises(ValueError, match=message):
        models.replicate(model, strategies[2])
    with strategies[2].scope(), pytest.raises(ValueError, match=message):
        mgpu.Predictor(dense(lib, subclass_of(lib, method)))
    with pytest.raises(ValueError, match=message):
        mgpu.predict_proba(model, ROWS)


@pytest.mark.parametrize("library", LIBRARIES)
def test_refuses_what_was_set_on_the_model(library, strategies):
    lib = LIBRARIES[library]
    model = dense(lib)
    model.predict = types.MethodType(lambda self, x: x, model)
    with pytest.raises(ValueError, match="has its own `predict`"):
        models.replicate(model, strategies[2])
    model = dense(lib)
    model.predict(ROWS, verbose=0)
    models.replicate(model, strategies[2])  # the function is Keras' own
    model.predict_function = lambda data: data
    with pytest.raises(ValueError, match="has its own `predict_function`"):
        models.replicate(model, strategies[2])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("compiled", [{}, {"run_eagerly": True}, {"jit_compile": True}])
def test_the_compiled_function_of_keras_is_not_a_method_of_the_user(
    library, compiled, strategies
):
    model = dense(LIBRARIES[library])
    model.compile(**compiled)
    model.make_predict_function()
    assert model.predict_function is not None
    models.replicate(model, strategies[2])


@pytest.mark.parametrize("library", LIBRARIES)
def test_the_remedies_of_the_message_work(library, strategies):
    lib = LIBRARIES[library]
    model = dense(lib, type("Mixed", (Doubles, lib.Model), {}))
    with pytest.raises(ValueError, match=r"\(Mixed\) has its own `predict`"):
        models.replicate(model, strategies[2])
    for plain in (lib.Model(model.input, model.output), lib.Sequential([model])):
        with strategies[2].scope():
            results = mgpu.Predictor(plain).predict(2 * ROWS, verbose=0)
        np.testing.assert_allclose(
            results, model.predict(ROWS, verbose=0), rtol=1e-5, atol=1e-5
        )


@pytest.mark.parametrize("library", LIBRARIES)
def test_methods_of_nested_models_do_not_count(library, strategies):
    lib = LIBRARIES[library]
    methods = ("predict", "make_predict_function", "predict_step")
    inner = dense(lib, subclass_of(lib, *methods), kernel_initializer="ones")
    inputs = lib.Input((4,))
    model = lib.Model(inputs, inner(inputs))
    with strategies[2].scope():
        results = mgpu.Predictor(model).predict(ROWS, verbose=0)
    np.testing.assert_array_equal(results, model.predict(ROWS, verbose=0))


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_step_set_on_the_model_runs_in_the_scope_alone(library, strategies):
    lib = LIBRARIES[library]
    with strategies[2].scope():
        model = dense(lib)
        model.predict_step = lambda data: 3.0 * model(data, training=False)
        results = mgpu.Predictor(model).predict(ROWS, verbose=0)
    np.testing.assert_allclose(results, 3 * model(ROWS), rtol=1e-5, atol=1e-5)
    with pytest.raises(ValueError, match=r"`predict_step` of .* was set on the object"):
        models.replicate(model, strategies[3])
    model = dense(lib)
    model.layers[-1].call = lambda inputs: -inputs
    with pytest.raises(ValueError, match=r"`call` of 'dense.* was set on the object"):
        models.replicate(model, strategies[2])


def test_a_call_operator_of_the_user_runs(strategies):
    class Halves(keras.Model):
        def __call__(self, *args, **kwargs):
            return super().__call__(*args, **kwargs) / 2

    model = dense(keras, Halves)
    with strategies[2].scope():
        results = mgpu.Predictor(model).predict(ROWS, verbose=0)
    np.testing.assert_array_equal(results, model.predict(ROWS, verbose=0))
    plain = keras.Model(model.input, model.output)
    np.testing.assert_array_equal(results, plain.predict(ROWS, verbose=0) / 2)


def test_refuses_a_custom_method_for_batches_when_it_is_called(strategies):
    model = dense(keras, subclass_of(keras, "predict_on_batch"))
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    assert predictor.predict(ROWS, verbose=0).shape == (7, 2)
    with pytest.raises(ValueError, match="has its own `predict_on_batch`"):
        predictor.predict_on_batch(ROWS)


def test_make_parallel_refuses_them_too():
    model = dense(keras, subclass_of(keras, "predict"))
    with pytest.raises(ValueError, match=r"\(Own\) has its own `predict`"):
        mgpu.make_parallel(model, 1)
