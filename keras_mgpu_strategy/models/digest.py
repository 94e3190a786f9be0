"""A short name for what a model computes.

Guarantee: models of equal architecture, weights and precision have equal digests, in
every process and on any number of replicas; others differ, but for code of the user's
own that is neither in a layer's configuration nor in its weights.
"""

import hashlib
import json

import numpy as np

from keras_mgpu_strategy.models.libraries import layers_of
from keras_mgpu_strategy.models.mirroring import variables_of
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.state import host_value, settings_of


def digest(replicated: ReplicatedModel) -> str:
    """Returns the SHA-256 of layers, weights and precision, in hexadecimal.

    Seeds of random layers do not count: prediction draws no random numbers.
    """
    model = replicated.model
    sha = hashlib.sha256(repr(replicated.precision).encode())
    for layer in layers_of(model) if hasattr(model, "layers") else ():
        settings = json.dumps(settings_of(layer), sort_keys=True, default=str)
        sha.update(f"{type(layer).__name__} {settings}\n".encode())
    for variable in getattr(model, "weights", None) or variables_of(model):
        value = np.ascontiguousarray(host_value(variable))
        sha.update(f"{value.dtype} {value.shape}\n".encode())
        sha.update(_bytes_of(value))
    return sha.hexdigest()


def _bytes_of(value: np.ndarray) -> bytes:
    if value.dtype == object:  # strings, as variables of them are read
        return json.dumps(value.tolist(), default=repr).encode()
    return value.tobytes()
