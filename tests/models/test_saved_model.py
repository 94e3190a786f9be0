"""SavedModel folders, put on every replica."""

import os
import shutil

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_mgpu_strategy import models


class Words(tf.Module):
    """Numbers and strings in, a dict out; its inputs do not come in A-Z order."""

    def __init__(self):
        super().__init__()
        self.scale = tf.Variable(2.0)
        pairs = tf.lookup.KeyValueTensorInitializer(["a", "b"], [1.0, 2.0])
        self.table = tf.lookup.StaticHashTable(pairs, -1.0)

    @tf.function(
        input_signature=[
            tf.TensorSpec((None,), tf.string, name="word"),
            tf.TensorSpec((None, 2), tf.float32, name="number"),
        ]
    )
    def __call__(self, word, number):
        return {
            "value": self.table.lookup(word)[:, None] * number * self.scale,
            "copy": tf.identity(word),
        }


def check_mirrored(replicated, strategy):
    assert models.strategy_of(replicated.model) is strategy


def make_model(lib):
    layers = lib.layers
    return lib.Sequential(
        [lib.Input((4,)), layers.Dense(3), layers.BatchNormalization()]
    )


def test_keras_export(tmp_path, strategies, rows, run_replicas, assert_same):
    model, path = make_model(keras), str(tmp_path / "model")
    model.export(path, verbose=False)
    replicated = models.read(path, strategies[2])
    check_mirrored(replicated, strategies[2])
    assert replicated.input_spec.shape.as_list() == [None, 4]
    assert replicated.output_shapes.as_list() == [None, 3]
    assert replicated.is_built
    models.build(replicated, rows)
    for inputs in (rows, rows.astype("float64"), [rows]):
        for outputs in run_replicas(replicated, inputs):
            assert_same(outputs, model(rows))


def test_each_replica_reads_its_own_copy(tmp_path, strategies, rows, run_replicas):
    make_model(keras).export(tmp_path / "model", verbose=False)
    replicated = models.read(tmp_path / "model", strategies[2])
    for variable in replicated.model.variables:
        copies = strategies[2].experimental_local_results(variable)
        copies[1].assign(tf.zeros_like(copies[1]))
    first, second = run_replicas(replicated, rows)
    assert first.any() and not second.any()


@pytest.mark.parametrize("kind", [dict, list])
def test_keras_export_with_structures(
    kind, tmp_path, strategies, rows, run_replicas, assert_same
):
    names = ("z", "a")
    tensors = [keras.Input((4,), name=name) for name in names]
    inputs = dict(zip(names, tensors, strict=True)) if kind is dict else tensors
    difference = keras.layers.Subtract()(tensors)
    outputs = {"wide": keras.layers.Dense(2)(difference), "raw": difference}
    model = keras.Model(inputs, outputs)
    model.export(tmp_path / "model", verbose=False)
    replicated = models.read(tmp_path / "model", strategies[2])
    assert isinstance(replicated.input_spec, kind)
    named = {"a": rows, "z": 2 * rows}
    expected = model(named if kind is dict else [2 * rows, rows])
    ways = [named] if kind is dict else [[2 * rows, rows], named]
    for way in ways:
        for received in run_replicas(replicated, way):
            assert_same(received, expected)


def test_a_module_with_a_signature(tmp_path, strategies, run_replicas, assert_same):
    module, path = Words(), str(tmp_path / "words")
    tf.saved_model.save(module, path, signatures=module.__call__)
    replicated = models.read(path, strategies[2])
    inputs = {
        "number": np.float32([[1, 2], [3, 4], [5, 6]]),
        "word": np.array(["a", "b", "c"]),
    }
    assert replicated.input_spec == {
        "number": tf.TensorSpec((None, 2), tf.float32, name="number"),
        "word": tf.TensorSpec((None,), tf.string, name="word"),
    }
    assert replicated.output_shapes["value"].as_list() == [None, 2]
    expected = module(inputs["word"], inputs["number"])
    for outputs in run_replicas(replicated, inputs):
        assert_same(outputs["value"], expected["value"])
        assert outputs["copy"].tolist() == [b"a", b"b", b"c"]

    with pytest.raises(
        ValueError, match="inputs named .*'wrong'.* expected .*'number'"
    ):
        replicated.call({"wrong": inputs["word"], "word": inputs["word"]})
    with pytest.raises(ValueError, match="as list, expected a dict .*keeps no order"):
        replicated.call([inputs["word"], inputs["number"]])
    with pytest.raises(ValueError, match="'number' has dtype string, expected float32"):
        replicated.call({"word": inputs["word"], "number": inputs["word"]})


def test_a_keras_model_saved_by_tensorflow(
    tmp_path, strategies, rows, run_replicas, assert_same
):
    model = make_model(keras)
    tf.saved_model.save(model, str(tmp_path / "model"))
    replicated = models.read(tmp_path / "model", strategies[2])
    for inputs in (rows, {"inputs": rows}):
        for outputs in run_replicas(replicated, inputs):
            assert_same(outputs, {"output_0": model(rows).numpy()})


def test_a_tf_keras_folder(tmp_path, strategies, rows, run_replicas, assert_same):
    model, path = make_model(tf_keras), str(tmp_path / "model")
    model.compile("adam", "mse")
    model.save(path, save_format="tf")
    replicated = models.read(path, strategies[3])
    check_mirrored(replicated, strategies[3])
    for outputs in run_replicas(replicated, rows):
        assert_same(outputs, model(rows))


def test_wrong_number_of_inputs(tmp_path, strategies, rows):
    make_model(keras).export(tmp_path / "model", verbose=False)
    replicated = models.read(tmp_path / "model", strategies[1])
    with pytest.raises(ValueError, match="Received 2 inputs, expected 1"):
        replicated.call([rows, rows])


def test_mirrors_variables_that_only_a_signature_uses(tmp_path, strategies, devices_of):
    module, strategy = Words(), strategies[2]
    path = str(tmp_path / "words")
    tf.saved_model.save(module, path, signatures=module.__call__)
    loaded = models.read(path, strategy).model
    assert not hasattr(loaded, "variables")
    (scale,) = loaded.signatures["serving_default"].variables
    assert devices_of(scale, strategy) == list(strategy.extended.worker_devices)


def test_no_endpoint(tmp_path, strategies):
    path = str(tmp_path / "module")
    tf.saved_model.save(tf.Module(), path)
    with pytest.raises(ValueError, match=r"has the signatures \[\], expected .*serve"):
        models.read(path, strategies[1])


@pytest.mark.parametrize("damage", ["saved_model.pb", "variables"])
def test_a_damaged_folder(damage, tmp_path, strategies):
    path = str(tmp_path / "model")
    make_model(keras).export(path, verbose=False)
    target = os.path.join(path, damage)
    if os.path.isdir(target):
        shutil.rmtree(target)
    else:
        with open(target, "r+b") as file:
            file.truncate(os.path.getsize(target) // 2)
    with pytest.raises(ValueError, match="model.* is incomplete or damaged"):
        models.read(path, strategies[1])
