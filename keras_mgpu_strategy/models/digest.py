"""A digest of what a model computes.

Models of equal architecture, weights, code and precision have equal digests, in every
process and on any number of replicas; others differ, except for what `attributes.py`
and `digests/code.py` cannot see. A SavedModel exported twice has two.
"""

import hashlib
import json
import pathlib
import tempfile
import types
from collections.abc import Iterable, Iterator
from typing import Any

import numpy as np

from keras_mgpu_strategy.digests.code import digest_of_code
from keras_mgpu_strategy.digests.packages import is_installed
from keras_mgpu_strategy.models.attributes import described_attributes, type_name
from keras_mgpu_strategy.models.custom_objects import leaves
from keras_mgpu_strategy.models.libraries import (
    is_library_class,
    layers_of,
    preprocessing_layers,
)
from keras_mgpu_strategy.models.overrides import is_users
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.stand_ins import is_seed
from keras_mgpu_strategy.models.state import settings_of
from keras_mgpu_strategy.models.variables import (
    hidden_variables,
    host_value,
    variables_of,
)

_OF_TRAINING = ("_constraint", "_initializer", "_regularizer")


def digest(replicated: ReplicatedModel) -> str:
    """Returns the SHA-256 of architecture, weights and precision, but not seeds."""
    if replicated.members:
        inner = ",".join(map(digest, replicated.members))
        return hashlib.sha256(inner.encode()).hexdigest()
    sha = hashlib.sha256(repr(replicated.precision).encode())
    if replicated.outputs is not None:
        sha.update(repr(replicated.outputs).encode())
    for line in _architecture(replicated):
        sha.update(f"{line}\n".encode())
    for variable in _variables(replicated):
        value = np.ascontiguousarray(host_value(variable))
        sha.update(f"{value.dtype} {value.shape}\n".encode())
        if value.dtype == object:  # as variables of strings are read
            sha.update(json.dumps(value.tolist(), default=repr).encode())
        else:
            sha.update(value.tobytes())
    return sha.hexdigest()


def preprocessing_of(replicated: ReplicatedModel) -> str | None:
    """What a task does to rows before its layers see them; None if nothing."""
    if not replicated.feeding.raw:
        return None
    task = replicated.model if replicated.task is None else replicated.task
    own = _own_code(task) if is_users(task, "preprocess_samples") else None
    return _as_text([_preprocessing(task), own])


def _architecture(replicated: ReplicatedModel) -> Iterator[str]:
    if replicated.graph is not None:
        yield replicated.graph
        return
    task = replicated.task
    if task is not None:
        yield _as_text([_preprocessing(task), _own_code(task)])
    elif replicated.feeding.raw:
        yield _as_text(_preprocessing(replicated.model))
    for layer in layers_of(replicated.model):
        parts = [
            settings_of(layer),
            _wiring(layer),
            _vocabulary(layer),
            described_attributes(layer),
            _own_code(layer),
        ]
        yield f"{type_name(layer)} {_as_text(parts)}"


def _as_text(value: Any) -> str:
    return json.dumps(value, sort_keys=True, default=type_name)


def _variables(replicated: ReplicatedModel) -> Iterable[Any]:
    if replicated.variables is not None:
        return replicated.variables
    model = replicated.model
    known = getattr(model, "weights", None) or variables_of(model)
    return [*known, *(v for v in hidden_variables(model) if not is_seed(v))]


def _wiring(layer: Any) -> Any:
    """How the layers of a graph are connected; numbers stand for their names."""
    if not getattr(layer, "layers", None) or not is_library_class(type(layer)):
        return None
    try:
        config = layer.get_config()
    except NotImplementedError:
        return None
    parts = config.get("layers") or []
    numbers = {part.get("name"): f"#{index}" for index, part in enumerate(parts)}
    nodes = [[part["class_name"], part.get("inbound_nodes")] for part in parts]
    ends = [config.get("input_layers"), config.get("output_layers")]
    return _renamed([nodes, ends], numbers)


def _renamed(value: Any, names: dict[Any, str]) -> Any:
    if isinstance(value, dict):
        return {str(key): _renamed(inner, names) for key, inner in value.items()}
    if isinstance(value, list | tuple):
        return [_renamed(inner, names) for inner in value]
    if isinstance(value, np.ndarray):
        return value.tolist()
    return names.get(value, value) if isinstance(value, str) else value


def _preprocessing(task: Any) -> Any:
    preprocessor: Any = getattr(task, "preprocessor", None)
    if not hasattr(preprocessor, "get_config"):
        return getattr(preprocessor, "__qualname__", type_name(preprocessor))
    return [settings_of(preprocessor), list(_assets(preprocessing_layers(task)))]


def _assets(layers: Iterable[Any]) -> Iterator[str]:
    for layer in layers:
        if not hasattr(layer, "save_assets"):
            continue
        with tempfile.TemporaryDirectory() as folder:
            layer.save_assets(folder)
            for path in sorted(pathlib.Path(folder).rglob("*")):
                if path.is_file():
                    yield hashlib.sha256(path.read_bytes()).hexdigest()


def _vocabulary(layer: Any) -> Any:
    if not is_library_class(type(layer)) or not hasattr(layer, "get_vocabulary"):
        return None
    store: dict[str, Any] = {}
    layer.save_own_variables(store)
    frequencies = {key: host_value(value).tolist() for key, value in store.items()}
    return [[str(word) for word in layer.get_vocabulary()], frequencies]


def _own_code(layer: Any) -> str | None:
    """A digest of a layer's code; None if all of it is Keras' own."""
    functions = {}
    for name, value in vars(layer).items():
        held = [leaf for leaf in leaves(value) if isinstance(leaf, types.FunctionType)]
        own = [leaf for leaf in held if not is_installed(leaf.__code__.co_filename)]
        if own and name != "loss" and not name.endswith(_OF_TRAINING):
            functions[name] = own
    if not is_installed(type(layer)):
        return digest_of_code([type(layer), functions])
    return digest_of_code(functions) if functions else None
