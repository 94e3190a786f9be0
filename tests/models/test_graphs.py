"""Models whose code need not become a graph in Keras, or is changed to become one."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras
from architectures import LIBRARIES

import keras_mgpu_strategy as mgpu

ROWS = np.random.default_rng(0).random((11, 4), dtype=np.float32)


def eager_model(lib):
    class Eager(lib.Model):
        def call(self, inputs):
            return inputs * float(np.log1p(inputs.numpy()).max())

    model = Eager()
    model.compile(run_eagerly=True)
    return model


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("settings", [{}, {"steps_per_execution": 7}])
def test_what_only_happens_to_run_eagerly_runs(library, settings, strategies):
    lib = LIBRARIES[library]
    inputs = lib.Input((4,))
    model = lib.Model(inputs, lib.layers.Dense(2)(inputs))
    model.compile(run_eagerly=True, **settings)
    with strategies[3].scope():
        results = mgpu.Predictor(model).predict(ROWS, verbose=0)
    np.testing.assert_allclose(results, model(ROWS), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("library", LIBRARIES)
def test_what_cannot_become_a_graph_is_refused(library, strategies):
    model = eager_model(LIBRARIES[library])
    assert model.predict(ROWS, verbose=0).shape == ROWS.shape
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    message = (
        r"(?s)\(Eager\) is compiled with run_eagerly=True.*'numpy'.*Expected.*Wrap"
    )
    with pytest.raises(ValueError, match=message):
        predictor.predict(ROWS, verbose=0)


def test_is_refused_at_once_if_inputs_are_declared(strategies):
    class Eager(keras.layers.Layer):
        def call(self, inputs):
            return inputs * inputs.numpy().max()

        def compute_output_spec(self, inputs):
            return keras.KerasTensor(inputs.shape, inputs.dtype)

    inputs = keras.Input((4,))
    model = keras.Model(inputs, Eager()(inputs))
    model.compile(run_eagerly=True)
    with strategies[2].scope(), pytest.raises(ValueError, match="run_eagerly=True"):
        mgpu.Predictor(model)


class Branching(tf_keras.layers.Layer):
    """AutoGraph turns this into operations; Keras 3 has no AutoGraph and refuses it."""

    def call(self, inputs):
        if tf.reduce_sum(inputs) > 2.0:
            inputs = -inputs
        for _ in tf.range(3):
            inputs = inputs + 1.0
        return inputs


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_autograph_works_as_in_tf_keras(engine, strategies):
    model = tf_keras.Sequential([tf_keras.layers.Dense(4), Branching()])
    model(ROWS)
    with strategies[3].scope():
        predictor = mgpu.Predictor(model, engine=engine)
        results = predictor.predict(ROWS, batch_size=3, verbose=0)
    expected = model.predict(ROWS, batch_size=1, verbose=0)
    np.testing.assert_allclose(results, expected, rtol=1e-5)


@pytest.mark.parametrize("where", ["outside", "inside", "file"])
@pytest.mark.parametrize("mode", ["int8", "float8"])
def test_quantized_models(mode, where, strategies, tmp_path):
    def quantized():
        inputs = keras.Input((4,))
        hidden = keras.layers.Dense(8, activation="relu")(inputs)
        model = keras.Model(inputs, keras.layers.Dense(3)(hidden))
        random = np.random.default_rng(1)
        model.set_weights([random.normal(size=w.shape) for w in model.get_weights()])
        for layer in model.layers[1:]:
            layer.quantize(mode)
        return model

    with strategies[2].scope():
        inside = quantized()
    model = inside if where == "inside" else quantized()
    model.save(tmp_path / "model.keras")
    with strategies[2].scope():
        is_file = where == "file"
        own = mgpu.load(tmp_path / "model.keras") if is_file else mgpu.Predictor(model)
    results = own.predict(ROWS, verbose=0)
    np.testing.assert_allclose(results, model.predict(ROWS, verbose=0), rtol=1e-5)
