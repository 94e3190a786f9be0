"""Models from files, put on every replica."""

import pathlib
import shutil
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

from keras_mgpu_strategy import models

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are saving your model as an HDF5 file"
)

FACTOR = 3.0


@keras.saving.register_keras_serializable(package="tests")
class Registered(keras.layers.Layer):
    def call(self, inputs):
        return inputs * FACTOR


class Unregistered(keras.layers.Layer):
    def call(self, inputs):
        return inputs * FACTOR


class Legacy(tf_keras.layers.Layer):
    def call(self, inputs):
        return inputs * FACTOR


def make_model(lib, *extra, loss="mean_squared_error"):
    layers = lib.layers
    model = lib.Sequential(
        [lib.Input((4,)), layers.Dense(5), layers.BatchNormalization(), *extra]
    )
    for weight in model.trainable_weights:
        weight.assign(np.random.default_rng(3).random(weight.shape))
    model.compile("adam", loss)
    return model


def make_lambda(lib):
    return make_model(lib, lib.layers.Lambda(lambda x: x * 2, name="code"))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """Name -> path of files written by real savers, and the models saved in them."""
    folder = tmp_path_factory.mktemp("models")
    model, legacy = make_model(keras), make_model(tf_keras)
    paths = {name: str(folder / name) for name in ("a.keras", "b.h5", "c.hdf5", "d.h5")}
    for name, source in zip(paths, (model, model, model, legacy), strict=True):
        source.save(paths[name])
    return paths, {"d.h5": legacy}, model


@pytest.mark.parametrize("name", ["a.keras", "b.h5", "c.hdf5", "d.h5"])
def test_reads_keras_files(name, saved, strategies, rows, run_replicas, assert_same):
    paths, others, model = saved
    strategy = strategies[2]
    replicated = models.read(paths[name], strategy)
    assert models.strategy_of(replicated.model) is strategy
    assert replicated.input_spec.shape.as_list() == [None, 4]
    expected = others.get(name, model)(rows, training=False)
    for outputs in run_replicas(replicated, rows):
        assert_same(outputs, expected)


def test_reads_a_path_object_and_keeps_compile_settings(
    saved, strategies, rows, tmp_path
):
    paths, _, model = saved
    path = shutil.copy(paths["a.keras"], tmp_path / "copy.keras")
    replicated = models.read(path, strategies[2])
    targets = np.zeros((8, 5), "float32")
    np.testing.assert_allclose(
        replicated.model.evaluate(rows, targets, verbose=0),
        model.evaluate(rows, targets, verbose=0),
        rtol=1e-5,
    )


@pytest.mark.parametrize(
    ("lib", "kind", "suffix"),
    [
        (keras, Unregistered, "keras"),
        (keras, Unregistered, "h5"),
        (tf_keras, Legacy, "h5"),
    ],
)
def test_custom_objects(lib, kind, suffix, tmp_path, strategies, rows, assert_same):
    model = make_model(lib, kind())
    path = str(tmp_path / f"model.{suffix}")
    model.save(path)
    name = kind.__name__
    with pytest.raises(ValueError, match=f"(?s)model.*custom_objects.*{name}"):
        models.read(path, strategies[2])
    replicated = models.read(path, strategies[2], custom_objects={name: kind})
    assert_same(replicated.model(rows), model(rows))


def test_registered_classes_need_no_custom_objects(
    tmp_path, strategies, rows, assert_same
):
    model = make_model(keras, Registered())
    path = str(tmp_path / "model.keras")
    model.save(path)
    assert_same(models.read(path, strategies[2]).model(rows), model(rows))


@pytest.mark.parametrize("library", [keras, tf_keras])
@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_safe_mode(library, suffix, tmp_path, strategies, rows, assert_same):
    model = make_lambda(library)
    path = str(tmp_path / f"model.{suffix}")
    model.save(path)
    with pytest.raises(ValueError, match=r"Python code .*\['code'\].*safe_mode=False"):
        models.read(path, strategies[2])
    replicated = models.read(path, strategies[2], safe_mode=False)
    assert_same(replicated.model(rows), model(rows))


def test_a_missing_path(tmp_path, strategies):
    with pytest.raises(FileNotFoundError, match="no model at .*none.keras.*expected a"):
        models.read(tmp_path / "none.keras", strategies[1])


@pytest.mark.parametrize("name", ["a.keras", "b.h5"])
def test_a_truncated_file(name, saved, tmp_path, strategies):
    path = tmp_path / name
    with open(saved[0][name], "rb") as file:
        content = file.read()
    for share in (0.02, 0.5, 0.9, 0.999):
        path.write_bytes(content[: int(len(content) * share)])
        with pytest.raises(ValueError, match=f"{name}.* is truncated or damaged"):
            models.read(path, strategies[1])


def test_a_damaged_archive(saved, tmp_path, strategies):
    path = tmp_path / "model.keras"
    shutil.copy(saved[0]["a.keras"], path)
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 0xFF
    path.write_bytes(content)
    with pytest.raises(ValueError, match="model.keras.* is truncated or damaged"):
        models.read(path, strategies[1])


def write_text(path):
    path.write_text("not a model\n" * 100)


def write_archive(path):
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("readme.txt", "hello")


def write_array(path):
    with h5py.File(path, "w") as file:
        file["x"] = np.zeros(3)


@pytest.mark.parametrize(
    ("name", "write", "message"),
    [
        ("model.keras", write_text, "model.keras.* is not .*in spite of its name"),
        ("model.h5", write_text, "model.h5.* is not .*in spite of its name"),
        ("model.keras", write_archive, "is not a `.keras` file"),
        ("data.h5", write_array, "without a model configuration.*load_weights"),
        ("model.onnx", write_text, "suffix '.onnx'; expected a `.keras` file"),
        ("folder", pathlib.Path.mkdir, r"no `saved_model.pb`.*holds \[\]"),
    ],
)
def test_what_is_not_a_model(name, write, message, tmp_path, strategies):
    write(tmp_path / name)
    with pytest.raises(ValueError, match=message):
        models.read(tmp_path / name, strategies[1])


@pytest.mark.parametrize("suffix", ["keras", "h5"])
def test_warns_of_compile_settings_that_cannot_be_restored(
    suffix, tmp_path, strategies, rows, assert_same
):
    def own_loss(truth, predicted):
        return tf.reduce_mean(tf.abs(truth - predicted), axis=-1)

    model = make_model(keras, loss=own_loss)
    path = str(tmp_path / f"model.{suffix}")
    model.save(path)
    with pytest.warns(UserWarning, match="compile settings.*`custom_objects`"):
        replicated = models.read(path, strategies[2])
    assert not replicated.model.compiled
    assert_same(replicated.model(rows), model(rows))
    if suffix == "keras":
        objects = {"own_loss": own_loss}
        replicated = models.read(path, strategies[2], custom_objects=objects)
        assert replicated.model.compiled
