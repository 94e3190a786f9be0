"""SavedModel folders, on every replica.

One written from objects is loaded once, and its variables are checked to be mirrored.
TensorFlow cannot mirror a TensorFlow 1 exporter's: it is loaded once per replica, each
of which calls its own copy; one with reference variables is refused.
"""

import hashlib
import os
import pathlib
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.endpoints import endpoint_of
from keras_mgpu_strategy.models.replicated import Models, ReplicatedModel
from keras_mgpu_strategy.models.variables import (
    check_mirrored,
    lives_on,
    value_of,
    variables_of,
)
from keras_mgpu_strategy.types import Nest

_REFERENCE_VARIABLES = frozenset({"AutoReloadVariable", "Variable", "VariableV2"})


def read_saved_model(
    path: str, strategy: tf.distribute.Strategy, outputs: tuple[str, ...] | None
) -> ReplicatedModel:
    """Loads a SavedModel folder on every replica."""
    with strategy.scope():
        model = _load(path)
    endpoint = call = endpoint_of(model, path, outputs)
    variables = _all_variables(model, endpoint.concrete)
    # The loader of what a TensorFlow 1 exporter wrote gives `prune`.
    is_graph_based = hasattr(model, "prune") and hasattr(model, "graph")
    if is_graph_based:
        _check_no_references(model, path)
    if is_graph_based and variables:
        devices = list(strategy.extended.worker_devices)
        model = Models(_load_on(device, path) for device in devices)
        found = [endpoint_of(copy, path, outputs) for copy in model]
        endpoints = dict(zip(devices, found, strict=True))
        # A mirrored variable knows which replica or device code is being traced for.
        with strategy.scope():
            here = tf.Variable(tf.zeros(()), trainable=False, name="replica_finder")

        def call(inputs: Nest) -> Nest:
            return endpoints[value_of(here).device](inputs)

        endpoint = found[0]
        variables = _all_variables(model[0], endpoint.concrete)
    else:
        check_mirrored(variables, strategy)
    return ReplicatedModel(
        model=model,
        strategy=strategy,
        call=call,
        input_spec=endpoint.input_spec,
        output_shapes=endpoint.output_shapes,
        outputs=outputs,
        variables=variables,
        graph=_graph_digest(path),
        folder=pathlib.Path(path).name,
    )


def _all_variables(loaded: Any, concrete: Any) -> tuple[Any, ...]:
    """The variables that the folder names, and those that only its graph uses."""
    found = [*variables_of(loaded), *concrete.variables]
    return tuple({id(variable): variable for variable in found}.values())


def _graph_digest(path: str) -> str:
    """SHA-256 of the graph and of the files it reads, such as vocabularies."""
    folder = pathlib.Path(path)
    files = [*folder.glob("saved_model.pb*"), *(folder / "assets").rglob("*")]
    sha = hashlib.sha256()
    for file in sorted(file for file in files if file.is_file()):
        sha.update(os.fsencode(file.relative_to(folder)))
        sha.update(hashlib.sha256(file.read_bytes()).digest())
    return sha.hexdigest()


def _load(path: str) -> Any:
    try:
        return tf.saved_model.load(path)
    except Exception as error:
        raise ValueError(
            f"SavedModel {path!r} cannot be loaded; it is incomplete or damaged "
            f"({type(error).__name__}: {error}). Export the model again, or copy the "
            "whole folder, its `variables` and `assets` included."
        ) from error


def _check_no_references(loaded: Any, path: str) -> None:
    """Refuses reference variables, found by name and tied to no device."""
    operations = loaded.graph.get_operations()
    names = [op.name for op in operations if op.type in _REFERENCE_VARIABLES]
    if names:
        raise ValueError(
            f"SavedModel {path!r} holds reference variables of TensorFlow 1 "
            f"({names[:4]}), which cannot be put on several devices. Write it again "
            "after `tf.compat.v1.enable_resource_variables()`: rebuild the graph, "
            "restore its checkpoint and save; or convert the model to a `.keras` file."
        )


def _load_on(device: str, path: str) -> Any:
    with tf.device(device):
        loaded = _load(path)
    variables = variables_of(loaded)
    if not all(lives_on(variable, device) for variable in variables):
        placed = {variable.device for variable in variables}
        raise ValueError(
            f"TensorFlow put variables of the SavedModel {path!r} on {sorted(placed)}, "
            f"expected {device}. Convert the model to a `.keras` file, or use one "
            "device."
        )
    return loaded
