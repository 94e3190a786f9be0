"""`evaluate` of models in other processes, compared with Keras on one device."""

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu

pytestmark = pytest.mark.slow

NUM_ROWS = 203
RANDOM = np.random.default_rng(3)
ROWS = RANDOM.random((NUM_ROWS, 6), np.float32)
FLAGS = RANDOM.integers(0, 2, (NUM_ROWS, 1))


class Largest(keras.metrics.Metric):
    """A user-defined metric, which the processes know only from this test."""

    def __init__(self, scale, name="largest", **more):
        super().__init__(name=name, **more)
        self.scale = scale
        self.most = self.add_weight(name="most", initializer="zeros")

    def update_state(self, y_true, y_pred, sample_weight=None):
        most = self.scale * tf.reduce_max(y_pred)
        self.most.assign(tf.maximum(tf.convert_to_tensor(self.most), most))

    def result(self):
        return tf.convert_to_tensor(self.most)

    def get_config(self):
        return {**super().get_config(), "scale": self.scale}


def own_loss(y_true, y_pred):
    return tf.square(tf.cast(y_true, y_pred.dtype) - y_pred)


def compiled(loss):
    dense = keras.layers.Dense(1, "sigmoid", kernel_regularizer="l2")
    model = keras.Sequential([keras.Input((6,), name="table"), dense])
    model.compile(loss=loss, metrics=[Largest(2.0), "auc"])
    return model


def on_ray(model, **options):
    ray = mgpu.RayOptions(num_actors=2)
    make = mgpu.Predictor if isinstance(model, keras.Model) else mgpu.load
    return make(model, engine="ray", ray=ray, **options)


def assert_same(predictor, model, x, y):
    for num_rows, batch_size in ((1, None), (len(x), 7)):
        data = (x[:num_rows], y[:num_rows], batch_size)
        expected = model.evaluate(*data, verbose=0, return_dict=True)
        received = predictor.evaluate(*data, verbose=0, return_dict=True)
        assert received == pytest.approx(expected, rel=1e-6)


@pytest.mark.filterwarnings("ignore:The object being serialized includes a `lambda`")
@pytest.mark.parametrize("loss", [own_loss, lambda y, p: tf.abs(own_loss(y, p))])
def test_losses_and_metrics_are_those_of_the_model(loss, cluster):
    model = compiled(loss)
    assert_same(on_ray(model), model, ROWS, FLAGS)


def test_losses_and_metrics_are_those_of_the_file(cluster, tmp_path):
    model, path = compiled(own_loss), tmp_path / "model.keras"
    model.save(path)
    objects = {"own_loss": own_loss, "Largest": Largest}
    predictor = on_ray(path, custom_objects=objects)
    assert_same(predictor, model, ROWS, FLAGS)
    frame = pd.DataFrame(ROWS, columns=list("abcdef")).assign(flag=FLAGS)
    frame.to_parquet(tmp_path / "table.parquet")
    received = predictor.evaluate(tmp_path / "table.parquet", "flag", verbose=0)
    assert received == pytest.approx(model.evaluate(ROWS, FLAGS, verbose=0), rel=1e-6)


def test_masks_come_with_results(cluster):
    embedding = keras.layers.Embedding(4, 6, mask_zero=True)
    tagger = keras.layers.LSTM(3, return_sequences=True)
    model = keras.Sequential([keras.Input((5,), dtype="int32"), embedding, tagger])
    model.compile(loss="mse", metrics=["mae"], weighted_metrics=["mae"])
    words = RANDOM.integers(0, 4, (NUM_ROWS, 5)).astype(np.int32)
    assert_same(on_ray(model), model, words, RANDOM.random((NUM_ROWS, 5, 3)))


def test_what_the_processes_refuse_is_an_error_here(cluster):
    model = keras.Sequential([keras.Input((6,)), keras.layers.Dense(1)])
    predictor = on_ray(model)
    with pytest.raises(ValueError, match="is not compiled"):
        predictor.evaluate(ROWS, FLAGS, verbose=0)
