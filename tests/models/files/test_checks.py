"""Files of a newer Keras, which has arguments that this one does not."""

import json
import zipfile

import h5py
import keras
import pytest

from keras_mgpu_strategy import models
from keras_mgpu_strategy.models.files.checks import newer_keras

pytestmark = pytest.mark.filterwarnings(
    "ignore:You are saving your model as an HDF5 file"
)
LAYER = '"units": 3'


@pytest.fixture
def model():
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(3)])


def write_keras(model, path, metadata, argument=""):
    """A `.keras` file with other metadata, and a layer with one more argument."""
    model.save(path)
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    config = content["config.json"].decode()
    assert LAYER in config
    content["config.json"] = config.replace(LAYER, LAYER + argument).encode()
    content["metadata.json"] = metadata
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)


def version(text):
    return json.dumps({"keras_version": text}).encode()


def test_an_archive_of_a_newer_keras_is_reported(model, strategies, tmp_path):
    path = str(tmp_path / "model.keras")
    write_keras(model, path, version("99.1.0"), ', "of_the_future": 1')
    message = rf"Keras 99\.1\.0 wrote it, and this is Keras {keras.__version__}"
    with pytest.raises(ValueError, match=message):
        models.read(path, strategies[1])


@pytest.mark.parametrize(
    ("metadata", "expected"),
    [
        (version("99.1.0"), "99.1.0"),
        (version(keras.__version__), None),
        (version("3.0.0"), None),
        (version("unknown"), None),
        (b'{"keras_version": null}', None),
        (b"{}", None),
        (b"[]", None),
        (b"not JSON", None),
    ],
)
def test_archives_record_the_version(model, tmp_path, metadata, expected):
    path = str(tmp_path / "model.keras")
    write_keras(model, path, metadata)
    assert newer_keras(path) == expected


@pytest.mark.parametrize(("given", "expected"), [("99.0", "99.0"), ("3.0.0", None)])
def test_hdf5_files_record_the_version(model, tmp_path, given, expected):
    path = str(tmp_path / "model.h5")
    model.save(path)
    assert newer_keras(path) is None
    with h5py.File(path, "a") as file:
        file.attrs["keras_version"] = given
    assert newer_keras(path) == expected
