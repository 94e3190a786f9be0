"""Whole elements and preprocessing under Ray: as in this process."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import hub_shape

pytestmark = pytest.mark.slow

NUM_ROWS = 11
X = np.random.default_rng(0).random((NUM_ROWS, 3))
IDS = np.arange(NUM_ROWS) + 2**40


class Named(keras.Model):
    def predict_step(self, data):
        x = data[0] if isinstance(data, tuple) else data
        rest = data[1:] if isinstance(data, tuple) else ()
        return {"y": self(x, training=False), "rest": rest}


def test_a_step_is_given_whole_elements(cluster):
    inputs = keras.Input((3,))
    model = Named(inputs, keras.layers.Dense(2)(inputs))
    predictor = mgpu.Predictor(model, engine="ray", ray=mgpu.RayOptions(num_actors=2))
    for make in (
        lambda: tf.data.Dataset.from_tensor_slices((X, IDS, X[:, 0])).batch(4),
        lambda: X,
    ):
        expected = model.predict(make(), verbose=0)
        results = predictor.predict(make(), batch_size=4, verbose=0)
        tf.nest.assert_same_structure(results, expected)
        tf.nest.map_structure(np.testing.assert_allclose, results, expected)


@pytest.mark.skipif(not hub_shape.HAS_HUB, reason="keras_hub is not installed")
def test_processes_preprocess(cluster):
    task, texts = hub_shape.text_task("hub"), hub_shape.texts(23)
    predictor = mgpu.Predictor(task, engine="ray", ray=mgpu.RayOptions(num_actors=2))
    results = predictor.predict(texts, batch_size=6, verbose=0)
    np.testing.assert_allclose(results, task.predict(texts, verbose=0), rtol=1e-5)


def test_what_a_copy_would_not_have_is_refused(cluster):
    inputs = keras.Input((3,))
    model = keras.Model(inputs, keras.layers.Dense(2)(inputs))
    model.predict_step = lambda data: model(data)
    with pytest.raises(ValueError, match="`predict_step` of .* was set on the object"):
        mgpu.Predictor(model, engine="ray", ray=mgpu.RayOptions(num_actors=1))
    own = type("Own", (keras.Model,), {"predict": keras.Model.predict})
    model = own(inputs, keras.layers.Dense(2)(inputs))
    with pytest.raises(ValueError, match="has its own `predict`"):
        mgpu.Predictor(model, engine="ray", ray=mgpu.RayOptions(num_actors=1))
