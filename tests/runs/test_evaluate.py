"""`evaluate`, against `model.evaluate` of Keras and tf_keras on one device."""

import functools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu

LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
NUM_ROWS = 1000
RANDOM = np.random.default_rng(3)
ROWS = RANDOM.random((NUM_ROWS, 6), np.float32)
CLASSES = RANDOM.integers(0, 3, NUM_ROWS)
FLAGS = (ROWS.sum(axis=1, keepdims=True) > 3).astype(np.float32)
WEIGHTS = RANDOM.random(NUM_ROWS).astype(np.float32)


def largest(library):
    """A metric of the user's own, which is no mean, and has an argument."""

    class Largest(library.metrics.Metric):
        def __init__(self, scale=1.0, name="largest", **more):
            super().__init__(name=name, **more)
            self.scale = scale
            self.most = self.add_weight(name="most", initializer="zeros")

        def update_state(self, y_true, y_pred, sample_weight=None):
            most = self.scale * tf.reduce_max(tf.cast(y_pred, tf.float32))
            self.most.assign(tf.maximum(tf.convert_to_tensor(self.most), most))

        def result(self):
            return tf.convert_to_tensor(self.most)

        def get_config(self):
            return {**super().get_config(), "scale": self.scale}

    return Largest(2.0)


def distance(y_true, y_pred):
    return tf.reduce_mean(tf.abs(tf.cast(y_true, y_pred.dtype) - y_pred), axis=-1)


def squared(y_true, y_pred):
    return tf.reduce_mean(tf.square(tf.cast(y_true, y_pred.dtype) - y_pred), axis=-1)


def hidden(library, **options):
    inputs = library.Input((6,), name="table")
    return inputs, library.layers.Dense(8, activation="relu", **options)(inputs)


def classes(library):
    inputs, inner = hidden(library)
    model = library.Model(inputs, library.layers.Dense(3, "softmax")(inner))
    model.compile(
        loss="sparse_categorical_crossentropy",
        metrics=["accuracy"],
        weighted_metrics=["accuracy"],
    )
    return model, CLASSES


def one_hot(library):
    inputs, inner = hidden(library)
    model = library.Model(inputs, library.layers.Dense(3)(inner))
    loss = library.losses.CategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy", distance, lambda y, p: p[:, 0]])
    return model, np.eye(3)[CLASSES]  # float64


def flags(library):
    inputs, inner = hidden(library, kernel_regularizer="l2", bias_regularizer="l1")
    model = library.Model(inputs, library.layers.Dense(1, "sigmoid")(inner))
    metrics = [library.metrics.AUC(name="auc"), largest(library), "binary_accuracy"]
    model.compile(loss=squared, metrics=metrics, weighted_metrics=["mae"])
    return model, FLAGS.astype(np.int64)


def loss_alone(library):
    inputs, inner = hidden(library)
    model = library.Model(inputs, library.layers.Dense(1)(inner))
    model.compile(loss=library.losses.MeanSquaredError(reduction="sum"))
    return model, FLAGS


def two_in_a_dict(library):
    inputs, inner = hidden(library)
    flag = library.layers.Dense(1, "sigmoid", name="flag")(inner)
    kind = library.layers.Dense(3, "softmax", name="kind")(inner)
    model = library.Model(inputs, {"kind": kind, "flag": flag})
    model.compile(
        loss={"flag": "mse", "kind": "sparse_categorical_crossentropy"},
        loss_weights={"flag": 0.3, "kind": 2.0},
        metrics={"flag": ["mae", "mse"], "kind": ["accuracy"]},
        weighted_metrics={"kind": ["accuracy"]},
    )
    return model, {"flag": FLAGS, "kind": CLASSES}


def two_in_a_list(library):
    inputs, inner = hidden(library)
    flag = library.layers.Dense(1, "sigmoid", name="flag")(inner)
    kind = library.layers.Dense(3, "softmax", name="kind")(inner)
    model = library.Model(inputs, [flag, kind])
    losses = ["binary_crossentropy", "sparse_categorical_crossentropy"]
    model.compile(loss=losses, metrics=[["mae"], [largest(library), "accuracy"]])
    return model, [FLAGS, CLASSES]


MODELS = (classes, one_hot, flags, loss_alone, two_in_a_dict, two_in_a_list)


@functools.cache
def made(make, library):
    LIBRARIES[library].utils.set_random_seed(5)
    return make(LIBRARIES[library])


def first(nest, num_rows):
    return tf.nest.map_structure(lambda array: array[:num_rows], nest)


def assert_same(received, expected):
    assert type(received) is type(expected)
    if isinstance(expected, dict):
        assert received.keys() == expected.keys()
        received = [received[name] for name in expected]
        expected = list(expected.values())
    np.testing.assert_allclose(received, expected, rtol=1e-6, atol=1e-7)


def on_replicas(model, strategy, engine="threads"):
    with strategy.scope():
        return mgpu.Predictor(model, engine=engine)


@pytest.mark.parametrize("library", LIBRARIES)
@pytest.mark.parametrize("make", MODELS)
def test_results_are_those_of_one_device(make, library, strategies):
    model, labels = made(make, library)
    cases = [(1, None, 1), (7, 2, 2), (64, 3, 3), (NUM_ROWS, None, 4)]
    for num_rows, batch_size, num_replicas in cases:
        predictor = on_replicas(model, strategies[num_replicas])
        data = first((ROWS, labels), num_rows)
        for weights in (None, WEIGHTS[:num_rows]):
            if library == "tf_keras" and weights is not None and type(labels) is dict:
                continue
            options = {"sample_weight": weights, "verbose": 0, "return_dict": True}
            expected = model.evaluate(*data, batch_size, **options)
            assert_same(predictor.evaluate(*data, batch_size, **options), expected)
        received = predictor.evaluate(*data, batch_size, verbose=0)
        assert_same(received, model.evaluate(*data, batch_size, verbose=0))
