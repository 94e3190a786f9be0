"""What a Keras model declares about its inputs and outputs; None if nothing."""

from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy.models.libraries import (
    has_free_batch,
    input_layer,
    is_sequential,
    library_of,
    symbols_of,
)
from keras_mgpu_strategy.types import DeclaredInput, Nest


def input_spec_of(model: Any) -> Nest | None:
    """Returns `DeclaredInput`s in the structure of the model's inputs."""
    tensors = declared(model, "inputs", "input")
    if tensors is None:
        return None
    return tf.nest.map_structure(lambda tensor: _spec(model, tensor), tensors)


def takes_sparse(model: Any) -> bool:
    """Whether a model declares an input to be sparse."""
    return any(map(_is_sparse, symbols_of(model, "inputs")))


def float_dtype_of(model: Any) -> tf.DType:
    """Returns the dtype of floats for a model that declares no inputs.

    It is Keras' `floatx`, or what the model computes in if that is wider.
    """
    floatx = tf.as_dtype(keras.config.floatx())
    computed = tf.as_dtype(getattr(model, "compute_dtype", None) or floatx)
    is_wider = computed.is_floating and computed.size > floatx.size
    return computed if is_wider else floatx


def output_shapes_of(model: Any) -> Nest | None:
    """Returns `tf.TensorShape`s in the structure of the model's outputs."""
    tensors = declared(model, "outputs", "output")
    if tensors is None:
        return None
    batch = symbols_of(model, "inputs")[0].shape[0]

    def shape(tensor: Any) -> tf.TensorShape:
        # Only an output with the input's batch axis is free: a constant one is not.
        is_batch = len(tensor.shape) > 0 and tensor.shape[0] == batch
        return _shape(tensor, is_batch and has_free_batch(model))

    return tf.nest.map_structure(shape, tensors)


def declared(model: Any, plural: str, singular: str) -> Nest | None:
    """Returns the symbolic tensors of a graph of layers, in the user's structure."""
    tensors = symbols_of(model, plural)
    if tensors and is_sequential(model):
        return tensors[0]
    return getattr(model, singular) if tensors else None


def _spec(model: Any, tensor: Any) -> DeclaredInput:
    layer = input_layer(model, tensor)
    return DeclaredInput(
        _shape(tensor, has_free_batch(model)),
        tf.as_dtype(tensor.dtype),
        tensor.name,
        optional=bool(getattr(layer, "optional", False)),
        # tf_keras gives layers the rows of every input unchanged.
        stays_sparse=library_of(model) is not keras or _is_sparse(tensor),
    )


def _is_sparse(tensor: Any) -> bool:
    is_spec = isinstance(getattr(tensor, "type_spec", None), tf.SparseTensorSpec)
    return is_spec or bool(getattr(tensor, "sparse", False))


def _shape(tensor: Any, is_free: bool) -> tf.TensorShape:
    shape = tf.TensorShape(tensor.shape)
    return tf.TensorShape([None, *shape[1:]]) if is_free and shape.rank else shape
