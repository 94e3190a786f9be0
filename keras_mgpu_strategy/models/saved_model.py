"""SavedModel folders, on every replica.

Guarantees:

* A SavedModel that was written from objects (Keras `export`, `tf.saved_model.save`,
  tf_keras) is loaded once, its variables mirrored, and that is checked.
* TensorFlow cannot mirror the variables of one that a TensorFlow 1 exporter wrote:
  it is loaded once per replica, and each replica calls its own.
* Endpoints, inputs and outputs are those of the file, string inputs and dict outputs
  included.
"""

from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.endpoints import Endpoint, endpoint_of
from keras_mgpu_strategy.models.mirroring import (
    check_mirrored,
    is_mirrored,
    value_of,
    variables_of,
)
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.types import Nest


def read_saved_model(path: str, strategy: tf.distribute.Strategy) -> ReplicatedModel:
    """Loads a SavedModel folder on every replica.

    Raises:
        ValueError: If the folder is damaged, has no serving endpoint, or holds
            variables that cannot be put on every replica.
    """
    with strategy.scope():
        loaded = _load(path)
    endpoint = endpoint_of(loaded, path)
    variables = [*variables_of(loaded), *endpoint.variables]
    if not all(is_mirrored(variable, strategy) for variable in variables):
        if not _is_graph_based(loaded):
            check_mirrored(variables, strategy)
        return _per_replica(path, strategy)
    return _replicated(loaded, strategy, endpoint, endpoint)


def _load(path: str) -> Any:
    try:
        return tf.saved_model.load(path)
    except Exception as error:
        raise ValueError(
            f"SavedModel {path!r} cannot be loaded; it is incomplete or damaged "
            f"({type(error).__name__}: {error}). Export the model again, or copy the "
            "whole folder, its `variables` and `assets` included."
        ) from error


def _is_graph_based(loaded: Any) -> bool:
    """Whether a TensorFlow 1 exporter wrote it: its loader gives `prune`."""
    return hasattr(loaded, "prune") and hasattr(loaded, "graph")


def _per_replica(path: str, strategy: tf.distribute.Strategy) -> ReplicatedModel:
    devices = list(strategy.extended.worker_devices)
    copies = {device: _load_on(device, path) for device in devices}
    endpoints = {device: endpoint_of(copies[device], path) for device in devices}
    # A mirrored variable knows which replica or device code is being traced for.
    with strategy.scope():
        here = tf.Variable(0.0, trainable=False, name="replica_finder")

    def call(inputs: Nest) -> Nest:
        return endpoints[value_of(here).device](inputs)

    first = endpoints[devices[0]]
    return _replicated(list(copies.values()), strategy, call, first)


def _load_on(device: str, path: str) -> Any:
    with tf.device(device):
        loaded = _load(path)
    placed = {variable.device for variable in variables_of(loaded)}
    if placed - {device}:
        raise ValueError(
            f"SavedModel {path!r} fixes its variables to {sorted(placed)}, so they "
            f"cannot be put on {device}. Write it again without devices "
            "(`clear_devices=True` in the TensorFlow 1 exporter), or convert the model "
            "to a `.keras` file."
        )
    return loaded


def _replicated(
    model: Any, strategy: tf.distribute.Strategy, call: Any, endpoint: Endpoint
) -> ReplicatedModel:
    return ReplicatedModel(
        model=model,
        strategy=strategy,
        call=call,
        input_spec=endpoint.input_spec,
        output_shapes=endpoint.output_shapes,
    )
