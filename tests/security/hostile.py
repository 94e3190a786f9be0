"""Hostile files, made from harmless ones."""

import io
import json
import os
import pickle
import struct
import zipfile

import h5py
import keras
import numpy as np


class Payload:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker):
        self._marker = str(marker)

    def __reduce__(self):
        return (os.mkdir, (self._marker,))


def pickled_array(marker):
    """An array that does harm if `allow_pickle=True`."""
    array = np.empty(3, object)
    array[:] = [Payload(marker)] * 3
    return array


def npy_bytes(array):
    content = io.BytesIO()
    np.lib.format.write_array(content, array, allow_pickle=True)
    return content.getvalue()


def raw_npy(header, values=b"\0" * 64, version=(1, 0)):
    """A `.npy` file with any header."""
    header = header.encode("latin1") if isinstance(header, str) else header
    length = struct.pack("<H" if version == (1, 0) else "<I", len(header))
    return b"\x93NUMPY" + bytes(version) + length + header + values


def claiming(shape, dtype="<f4"):
    return f"{{'descr': {dtype!r}, 'fortran_order': False, 'shape': {shape!r}, }}\n"


def save_model(path, *layers):
    """Writes a small model, as Keras does."""
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), *layers])
    model.save(path)
    return path


def with_members(path, target, changes):
    """Copies a `.keras` file with other members; None leaves one out."""
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist()}
    members.update(changes)
    with zipfile.ZipFile(target, "w") as archive:
        for name, content in members.items():
            if content is not None:
                archive.writestr(name, content)
    return target


def config_of(path):
    with zipfile.ZipFile(path) as archive:
        return json.loads(archive.read("config.json"))


def with_layer(path, target, layer, **compile_config):
    """Copies a `.keras` file of a Sequential model with one more layer."""
    config = config_of(path)
    config["config"]["layers"].append(layer)
    config.update(compile_config)
    return with_members(path, target, {"config.json": json.dumps(config)})


def function(module, name):
    """A function as Keras writes it into a configuration."""
    return {
        "class_name": "function",
        "config": name,
        "module": module,
        "registered_name": name,
    }


def lambda_layer(called, **config):
    """A Lambda layer that calls such a function."""
    return {
        "class_name": "Lambda",
        "module": "keras.layers",
        "registered_name": None,
        "config": {"name": "evil", "function": called, "arguments": {}, **config},
    }


def layer(class_name, module="keras.layers", **config):
    return {
        "class_name": class_name,
        "module": module,
        "registered_name": class_name,
        "config": {"name": "evil", **config},
    }


def weights_of(path):
    """The HDF5 file of weights in a `.keras` file."""
    with zipfile.ZipFile(path) as archive:
        return archive.read("model.weights.h5")


def change_h5(content, change):
    """Returns the bytes of an HDF5 file after some change to it."""
    file = io.BytesIO(content)
    with h5py.File(file, "r+") as opened:
        change(opened)
    return file.getvalue()


def pickle_bytes(marker):
    return pickle.dumps(Payload(marker))
