"""Models that cannot be put on every replica."""

import os
import subprocess
import sys

import keras
import pytest
from architectures import LIBRARIES, Forgetful, FromLayers

from keras_mgpu_strategy import models


def test_says_how_to_build_what_cannot_be_rebuilt(strategies, rows):
    model = FromLayers([keras.layers.Dense(2)])
    model(rows)
    with pytest.raises(ValueError, match="(?s)FromLayers.*cannot be rebuilt.*scope"):
        models.replicate(model, strategies[2])


def test_refuses_a_rebuilt_model_with_other_settings(strategies, rows):
    model = Forgetful(slope=0.25)
    model(rows)
    with pytest.raises(ValueError, match="leaky.*slope': 0.5.*not .*slope': 0.25"):
        models.replicate(model, strategies[2])


def test_refuses_a_rebuilt_model_with_other_layers(strategies, rows):
    class Deep(keras.Model):
        """Its configuration leaves out how many layers it makes."""

        def __init__(self, depth=1):
            super().__init__()
            self.parts = [keras.layers.Dense(3) for _ in range(depth)]

        def call(self, inputs):
            for part in self.parts:
                inputs = part(inputs)
            return inputs

        def get_config(self):
            return {}

    model = Deep(depth=2)
    model(rows)
    with pytest.raises(ValueError, match="number of layers: 2 in the rebuilt model"):
        models.replicate(model, strategies[2])


@pytest.mark.parametrize("value", [keras.layers.Dense(2), "model.keras", len, None])
def test_refuses_what_is_not_a_keras_model(strategies, value):
    with pytest.raises(TypeError, match="Expected a Keras model, received .* of type"):
        models.replicate(value, strategies[2])


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("bidirectional", [False, True])
def test_refuses_stateful_models_on_several_replicas(
    library, bidirectional, strategies
):
    lib = LIBRARIES[library]
    layer = lib.layers.LSTM(2, stateful=True, name="memory")
    layer = lib.layers.Bidirectional(layer) if bidirectional else layer
    inputs = lib.Input(batch_shape=(2, 4, 1))
    inner = lib.Model(inputs, layer(inputs))
    model = lib.Sequential([lib.Input(batch_shape=(2, 4, 1)), inner])
    with pytest.raises(ValueError, match="stateful recurrent layers .*memory.*2 repl"):
        models.replicate(model, strategies[2])


def test_allows_a_stateful_model_on_one_replica(strategies):
    layer = keras.layers.LSTM(2, stateful=True)
    model = keras.Sequential([keras.Input(batch_shape=(2, 4, 1)), layer])
    spec = models.replicate(model, strategies[1]).input_spec
    assert spec.shape.as_list() == [2, 4, 1]


def test_refuses_another_backend():
    # The NumPy backend of recent versions of Keras borrows functions of JAX.
    pytest.importorskip("jax")
    script = (
        "import keras, tensorflow as tf\n"
        "from keras_mgpu_strategy import models\n"
        "model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])\n"
        "models.replicate(model, tf.distribute.MirroredStrategy(['CPU:0']))\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script],
        env={**os.environ, "KERAS_BACKEND": "numpy"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 1
    assert "backend 'numpy', expected 'tensorflow'" in done.stderr
    assert "KERAS_BACKEND=tensorflow" in done.stderr
