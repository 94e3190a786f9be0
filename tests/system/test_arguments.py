"""Unknown keywords of public functions: the error names the nearest."""

import inspect
import re

import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.system.tracebacks import name_nearest

MADE = mgpu.Predictor.__new__(mgpu.Predictor)


@pytest.mark.parametrize(
    ("function", "arguments", "unknown", "meant"),
    [
        (mgpu.load, ["m.keras"], "engin", "engine"),
        (mgpu.Predictor, ["m"], "jit_compil", "jit_compile"),
        (mgpu.scope, ["cpu:0"], "replica_per_device", "replicas_per_device"),
        (mgpu.predict_proba, ["m", "x"], "batchsize", "batch_size"),
        (mgpu.make_parallel, ["m"], "gpucount", "gpu_count"),
        (mgpu.RayOptions, [], "num_actor", "num_actors"),
        (mgpu.files.Csv, ["a.csv"], "collumns", "columns"),
        (MADE.predict, ["x"], "verbos", "verbose"),
        (MADE.predict_proba, ["x"], "from_logit", "from_logits"),
        (MADE.predict_classes, ["x"], "callback", "callbacks"),
        (MADE.predict_top_k, ["x"], "step", "steps"),
        (MADE.predict_on_batch, [], "y", "x"),
        (MADE.predict_iter, ["x"], "batchsize", "batch_size"),
        (MADE.predict_batches, [], "batchs", "batches"),
        (MADE.predict_to, ["o.npy", "x"], "overwritte", "overwrite"),
        (MADE.evaluate, ["x"], "sample_weights", "sample_weight"),
    ],
)
def test_the_nearest_argument_is_named(function, arguments, unknown, meant):
    with pytest.raises(TypeError) as error:
        function(*arguments, **{unknown: 1})
    # Python writes the full name of a method, and names the nearest itself since 3.13.
    name = rf"(\w+\.)?{function.__name__}(\.__init__)?"
    begins = rf"{name}\(\) got an unexpected keyword argument '{unknown}'\. "
    advice = "Expected x, pad." if len(unknown) == 1 else f"Did you mean '{meant}'?"
    assert re.fullmatch(begins + re.escape(advice), str(error.value))
    parameters = inspect.signature(function).parameters
    assert meant in parameters and unknown not in parameters


def test_all_are_listed_if_none_is_near():
    with pytest.raises(TypeError, match=r"'gpus'\. Expected devices, replicas_per_"):
        mgpu.scope(gpus=[0, 1])


def has_size(size=1):
    raise ValueError(f"f() got an unexpected keyword argument 'shape' of {size}")


def calls_another(size=1):
    return has_size(shape=size)


def takes_any(**others):
    return has_size(**others)


@pytest.mark.parametrize(
    ("function", "keywords"),
    [
        (has_size, {"size": 1}),  # not a TypeError
        (calls_another, {"size": 1}),  # of a call within the function
        (takes_any, {"shape": 1}),
    ],
)
def test_other_errors_stay_as_they_are(function, keywords):
    with pytest.raises((TypeError, ValueError)) as error:
        function(**keywords)
    text = str(error.value)
    assert "unexpected keyword argument 'shape'" in text
    name_nearest(error.value, function, keywords)
    assert str(error.value) == text
