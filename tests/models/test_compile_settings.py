"""`evaluate` and `fit` of a model that was rebuilt on every replica."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_mgpu_strategy import models

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
WEIGHT = 3.0


def weighted_error(truth, predicted):
    return tf.reduce_mean((truth - predicted) ** 2, axis=-1) * WEIGHT


def make_metrics(lib):
    class Largest(lib.metrics.Metric):
        """Not registered, and holds a variable."""

        def __init__(self, name="largest", **kwargs):
            super().__init__(name=name, **kwargs)
            self.value = self.add_weight(name="value", initializer="zeros")

        def update_state(self, truth, predicted, sample_weight=None):
            del predicted, sample_weight
            self.value.assign_add(tf.reduce_sum(tf.cast(truth, self.value.dtype)))

        def result(self):
            return self.value * 1.0

        def reset_state(self):
            self.value.assign(0.0)

    def named(truth, predicted):
        return tf.reduce_mean(tf.abs(truth - predicted), axis=-1) * WEIGHT

    return ["mae", named, Largest()]


def make_model(lib):
    layers = lib.layers
    return lib.Sequential(
        [lib.Input((4,)), layers.Dense(5, activation="tanh"), layers.Dense(3)]
    )


def make_optimizer(lib):
    class Halving(lib.optimizers.schedules.LearningRateSchedule):
        """Not registered."""

        def __init__(self, start):
            self.start = start

        def __call__(self, step):
            return self.start * 0.5 ** tf.cast(step, tf.float32)

        def get_config(self):
            return {"start": self.start}

    return lib.optimizers.Adam(Halving(0.05))


@pytest.mark.parametrize(
    ("library", "loss"),
    [
        ("keras", weighted_error),
        ("keras", lambda truth, predicted: tf.abs(truth - predicted) * WEIGHT),
        ("tf_keras", weighted_error),
    ],
)
def test_continues_training_like_the_original(library, loss, strategies, rows, targets):
    lib = LIBRARIES[library]
    model = make_model(lib)
    model.compile(make_optimizer(lib), loss, metrics=make_metrics(lib))
    model.fit(rows, targets, batch_size=4, shuffle=False, verbose=0)
    rebuilt = models.replicate(model, strategies[2]).model

    expected = model.evaluate(rows, targets, verbose=0)
    received = rebuilt.evaluate(rows, targets, verbose=0)
    np.testing.assert_allclose(received, expected, rtol=1e-5)

    for each in (model, rebuilt):
        each.fit(rows, targets, batch_size=4, shuffle=False, verbose=0)
    for after, before in zip(rebuilt.weights, model.weights, strict=True):
        np.testing.assert_allclose(after.numpy(), before.numpy(), rtol=1e-4, atol=1e-6)
    assert (
        rebuilt.optimizer.iterations.numpy() == model.optimizer.iterations.numpy() == 4
    )


@pytest.mark.parametrize("library", LIBRARIES)
def test_mirrors_the_state_of_the_optimizer(
    library, strategies, rows, targets, devices_of
):
    lib, strategy = LIBRARIES[library], strategies[3]
    with strategies[2].scope():
        model = make_model(lib)
        model.compile(lib.optimizers.Adam(0.01), "mse")
    model.fit(rows, targets, batch_size=4, verbose=0)
    rebuilt = models.replicate(model, strategy).model
    before, after = model.optimizer.variables, rebuilt.optimizer.variables
    assert len(before) == len(after) > 4
    for old, new in zip(before, after, strict=True):
        assert devices_of(new, strategy) == list(strategy.extended.worker_devices)
        np.testing.assert_array_equal(new.numpy(), old.numpy())


def test_keeps_a_changed_learning_rate(strategies):
    model = make_model(keras)
    model.compile(keras.optimizers.SGD(0.5), "mse")
    model.optimizer.learning_rate = 0.125
    rebuilt = models.replicate(model, strategies[2]).model
    assert rebuilt.optimizer.learning_rate.numpy() == 0.125


@pytest.mark.filterwarnings("ignore:You are saving your model as an HDF5 file")
def test_keeps_the_optimizer_of_a_model_that_was_saved_as_h5(strategies, tmp_path):
    model = make_model(keras)
    model.compile(keras.optimizers.SGD(0.25), "mse")
    model.save(tmp_path / "model.h5")
    rebuilt = models.replicate(model, strategies[2]).model
    assert isinstance(rebuilt.optimizer, keras.optimizers.SGD)
    assert rebuilt.optimizer.learning_rate.numpy() == 0.25


def test_wraps_the_optimizer_of_a_half_precision_model(strategies, rows, targets):
    inputs = keras.Input((4,), dtype="float32")
    outputs = keras.layers.Dense(3, dtype="mixed_float16")(inputs)
    model = keras.Model(inputs, outputs)
    model.compile(keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD()), "mse")
    model.fit(rows, targets, verbose=0)
    rebuilt = models.replicate(model, strategies[2]).model
    assert isinstance(rebuilt.optimizer, keras.optimizers.LossScaleOptimizer)
    assert rebuilt.optimizer is not model.optimizer
    assert rebuilt.optimizer.iterations.numpy() == 1


def test_warns_of_optimizer_state_that_no_longer_fits(strategies, rows, targets):
    model = make_model(keras)
    model.compile("adam", "mse")
    model.fit(rows, targets, verbose=0)
    model.layers[0].trainable = False
    with pytest.warns(UserWarning, match="optimizer .* does not fit the trainable"):
        models.replicate(model, strategies[2])


def test_carries_each_output_its_loss(strategies, rows, targets):
    inputs = keras.Input((4,))
    outputs = {name: keras.layers.Dense(3, name=name)(inputs) for name in ("a", "b")}
    model = keras.Model(inputs, outputs)
    model.compile(
        "sgd",
        loss={"a": "mse", "b": weighted_error},
        loss_weights={"a": 1.0, "b": 0.5},
        metrics={"a": ["mae"], "b": ["mse", "mae"]},
    )
    both = {"a": targets, "b": targets}
    rebuilt = models.replicate(model, strategies[2]).model
    expected = model.evaluate(rows, both, verbose=0, return_dict=True)
    received = rebuilt.evaluate(rows, both, verbose=0, return_dict=True)
    assert received == pytest.approx(expected, rel=1e-5)


class OwnCompile(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(3)

    def compile(self, speed, **kwargs):
        super().compile(keras.optimizers.SGD(speed), "mse", **kwargs)

    def call(self, inputs):
        return self.dense(inputs)


class OwnHooks(OwnCompile):
    def compile(self, speed, **kwargs):
        super().compile(speed, **kwargs)
        self.speed = speed

    def get_compile_config(self):
        return {"speed": self.speed}

    def compile_from_config(self, config):
        self.compile(**config)


def test_warns_of_a_compile_that_it_cannot_repeat(strategies, rows):
    model = OwnCompile()
    model(rows)
    model.compile(speed=0.1)
    with pytest.warns(UserWarning, match="OwnCompile overrides `compile` but not"):
        rebuilt = models.replicate(model, strategies[2]).model
    assert not rebuilt.compiled


def test_repeats_a_compile_by_its_hooks(strategies, rows):
    model = OwnHooks()
    model(rows)
    model.compile(speed=0.25)
    rebuilt = models.replicate(model, strategies[2]).model
    assert rebuilt.compiled
    assert rebuilt.optimizer.learning_rate.numpy() == 0.25


@pytest.mark.parametrize("library", LIBRARIES)
def test_converts_a_compiled_model_inside_its_scope(library, strategies, rows, targets):
    lib = LIBRARIES[library]
    with strategies[2].scope():
        layers = [lib.Input((4,)), lib.layers.BatchNormalization(), lib.layers.Dense(3)]
        model = lib.Sequential(layers)
        model.compile(lib.optimizers.Adam(0.25), "mse")
    model.fit(rows, targets, verbose=0)
    # Where users make a Predictor.
    with strategies[2].scope():
        new = models.replicate(model, strategies[2], "bfloat16").model
    assert int(new.optimizer.iterations.numpy()) == 1
    assert float(new.optimizer.learning_rate.numpy()) == 0.25
    for old, copied in zip(model.get_weights(), new.get_weights(), strict=True):
        np.testing.assert_allclose(copied.astype("float32"), old, rtol=0.01)
