"""SavedModel folders of TensorFlow 1 exporters, put on every replica."""

import os

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models
from tests import children

v1 = tf.compat.v1


def export(path):
    """A graph with a session, as exporters of TensorFlow 1 wrote it."""
    with tf.Graph().as_default(), tf.device("/cpu:0"):
        x = v1.placeholder(tf.float32, (None, 4), name="x")
        w = v1.get_variable("w", initializer=[[1.0], [2.0], [3.0], [4.0]])
        b = v1.get_variable("b", initializer=[0.5])
        y = tf.matmul(x, w) + b
        with v1.Session() as session:
            session.run(v1.global_variables_initializer())
            v1.saved_model.simple_save(session, path, {"x": x}, {"y": y})


def export_both(folder):
    """With reference variables and with resource variables, both on a device."""
    v1.disable_v2_behavior()
    export(f"{folder}/reference")
    v1.enable_resource_variables()
    export(f"{folder}/resource")


@pytest.fixture(scope="module")
def tf1_models(tmp_path_factory):
    folder = str(tmp_path_factory.mktemp("tf1"))
    children.run(export_both, folder)
    return {kind: os.path.join(folder, kind) for kind in ("reference", "resource")}


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
def test_a_tf1_export(
    num_replicas, tf1_models, strategies, rows, run_replicas, assert_same
):
    strategy = strategies[num_replicas]
    devices = list(strategy.extended.worker_devices)
    replicated = models.read(tf1_models["resource"], strategy)
    expected = rows @ np.float32([[1], [2], [3], [4]]) + 0.5
    for outputs in run_replicas(replicated, rows):
        assert_same(outputs, {"y": expected})

    placed = [{v.device for v in copy.variables} for copy in replicated.model]
    assert placed == [{device} for device in devices]
    for variable in replicated.model[-1].variables:
        variable.assign(tf.zeros_like(variable))
    *others, last = run_replicas(replicated, rows)
    assert not last["y"].any()
    for outputs in others:
        assert_same(outputs, {"y": expected})


def test_a_tf1_export_traced_for_one_device(tf1_models, strategies, rows):
    replicated = models.read(tf1_models["resource"], strategies[2])
    for variable in replicated.model[1].variables:
        variable.assign(tf.zeros_like(variable))
    spec = tf.TensorSpec((None, 4))
    results = []
    for device in strategies[2].extended.worker_devices:
        with strategies[2].scope(), tf.device(device):
            function = tf.function(replicated.call).get_concrete_function(spec)
        with tf.device(device):
            results.append(function(tf.constant(rows))["y"].numpy())
    assert results[0].any() and not results[1].any()


def test_a_tf1_export_is_distinguished_by_its_weights(tf1_models, strategies):
    first, again = (models.read(tf1_models["resource"], strategies[n]) for n in (1, 2))
    before = models.digest(first)
    assert models.digest(again) == before
    for variable in first.model[0].variables:
        variable.assign(tf.zeros_like(variable))
    assert models.digest(first) != before


def test_callbacks_of_a_tf1_export(tf1_models, strategies, rows):
    class Stops(keras.callbacks.Callback):
        def on_predict_batch_end(self, batch, logs=None):
            self.model.stop_predicting = True

    with strategies[2].scope():
        predictor = mgpu.load(tf1_models["resource"])
    results = predictor.predict(rows, 4, verbose=0, callbacks=[Stops()])
    assert results["y"].shape == (4, 1)


def test_a_tf1_export_with_reference_variables(tf1_models, strategies):
    with pytest.raises(
        ValueError, match=r"reference variables .*\['w', 'b'\].*enable_"
    ):
        models.read(tf1_models["reference"], strategies[2])
