"""Compiled models that belong to another strategy than the one entered."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu

ROWS = np.random.default_rng(0).random((12, 4)).astype("float32")
OPTIMIZERS = {
    "adam": lambda: keras.optimizers.Adam(0.01),
    "sgd": lambda: keras.optimizers.SGD(0.02, momentum=0.9),
    "scheduled": lambda: keras.optimizers.Adam(
        keras.optimizers.schedules.ExponentialDecay(0.1, 10, 0.9)
    ),
}


@pytest.mark.parametrize("optimizer", OPTIMIZERS)
def test_a_model_compiled_under_another_strategy_keeps_its_settings(
    optimizer, strategies
):
    # Not trained under the first one: TensorFlow's collectives on CPUs take groups
    # of only one size in a process.
    with strategies[2].scope():
        model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])
        model.compile(OPTIMIZERS[optimizer](), "mse", metrics=["mae"])
    with strategies[3].scope():
        predictor = mgpu.Predictor(model)
    assert predictor.num_replicas == 3
    result = predictor.predict(ROWS, batch_size=5, verbose=0)
    np.testing.assert_allclose(
        result, model.predict(ROWS, verbose=0), rtol=1e-5, atol=1e-6
    )
    assert type(predictor.model.optimizer) is type(model.optimizer)
    rates = [m.optimizer.learning_rate for m in (predictor.model, model)]
    np.testing.assert_allclose(*map(keras.ops.convert_to_numpy, rates))
    data = tf.data.Dataset.from_tensor_slices((ROWS, ROWS[:, :3])).batch(6)
    loss, error = predictor.model.evaluate(data, verbose=0)
    np.testing.assert_allclose(error, np.abs(result - ROWS[:, :3]).mean(), rtol=1e-4)
    np.testing.assert_allclose(loss, ((result - ROWS[:, :3]) ** 2).mean(), rtol=1e-4)
