"""What the `repr` of a Predictor shows."""

import keras
import pytest
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.engines.options import Options


def digits(library=keras, **options):
    layers = [library.Input((4,)), library.layers.Dense(3, **options)]
    return library.Sequential(layers, name="digits")


class Unbuilt(keras.Model):
    def __init__(self):
        super().__init__(name="unbuilt")
        self.dense = keras.layers.Dense(2)

    def call(self, x):
        return self.dense(x)


def test_model_replicas_engine_and_floats_are_shown(strategies):
    with strategies[2].scope():
        plain, other = mgpu.Predictor(digits()), mgpu.Predictor(digits(tf_keras))
        unbuilt = mgpu.Predictor(Unbuilt())
        mixed = mgpu.Predictor(digits(dtype="mixed_float16"), engine="mirrored")
    where = "2 replicas: CPU:0, CPU:1"
    assert repr(plain) == f"Predictor('digits', {where}; threads, float32)"
    assert str(plain) == repr(other) == repr(plain)
    assert repr(unbuilt) == f"Predictor('unbuilt', {where}; threads, float32)"
    assert repr(mixed) == f"Predictor('digits', {where}; mirrored, float16)"


def test_options_that_were_chosen_are_shown(strategies):
    with strategies[1].scope():
        predictor = mgpu.Predictor(
            digits(), precision="bfloat16", output_dtype="float16", jit_compile=False
        )
    assert repr(predictor) == (
        "Predictor('digits', 1 replica: CPU:0; threads, bfloat16, jit_compile=False, "
        "output_dtype='float16')"
    )


def test_a_saved_model_is_shown_by_its_folder(tmp_path, strategies):
    digits().export(tmp_path / "exported", verbose=False)
    with strategies[1].scope():
        predictor = mgpu.load(tmp_path / "exported")
    assert repr(predictor) == "Predictor('exported', 1 replica: CPU:0; threads)"


def test_many_replicas_are_shortened():
    devices = [f"/job:localhost/replica:0/task:0/device:GPU:{i}" for i in range(16)]
    options = Options().for_models(2)
    shown = options.describe(["a", "b"], ["float16", "float32"], devices)
    replicas = "16 replicas: GPU:0, GPU:1, ..., GPU:15"
    how = "threads, float16 and float32, combine='mean'"
    assert shown == f"'a', 'b', {replicas}; {how}"
    options = Options(engine="ray").for_models(6)
    shown = options.describe("abcdef", [], ["host/12/GPU:0"])
    assert shown == (
        "'a', 'b', ..., 'f', 1 process: host/12/GPU:0; ray, combine='mean'"
    )


def test_processes_that_have_ended_are_not_counted():
    shown = Options(engine="ray").describe(["a"], ["float32"], [])
    assert shown == "'a', 0 processes; ray, float32"


def test_several_models_and_views_are_shown(strategies):
    views = ["identity", mgpu.View(keras.ops.negative)]
    with strategies[1].scope():
        several = mgpu.Predictor([digits(), digits()], combine="vote", views=views)
    shown = "'digits', 'digits', 1 replica: CPU:0; threads, float32, combine='vote', "
    assert repr(several) == f"Predictor({shown}views=['identity', View(negative)])"


@pytest.mark.parametrize("attribute", ["_runner", None])
def test_an_unfinished_predictor_can_be_shown(attribute):
    predictor = mgpu.Predictor.__new__(mgpu.Predictor)
    if attribute:
        setattr(predictor, attribute, None)
    assert repr(predictor).startswith("<keras_mgpu_strategy.predictor.Predictor object")
