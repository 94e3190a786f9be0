"""Which Keras a model comes from, what it declares, and which models are refused.

`tf_keras` is never imported for a model of another library. A model that cannot run on
several devices is refused up front, never run on one.
"""

import sys
from collections.abc import Iterable
from types import ModuleType
from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy.digests.packages import root_of
from keras_mgpu_strategy.types import DeclaredInput, Nest

LIBRARIES = ("keras", "tf_keras")

# KerasHub, and its former name KerasNLP.
_HUBS = frozenset({"keras_hub", "keras_nlp"})


def is_library_class(cls: type) -> bool:
    """Whether a class is Keras' own, not the user's."""
    return root_of(cls) in LIBRARIES


def is_hub_class(cls: type) -> bool:
    """Whether a class is KerasHub's own."""
    return root_of(cls) in _HUBS


def is_hub_task(model: Any) -> bool:
    """Whether a model is a KerasHub task, or derived from one."""
    has_method = hasattr(type(model), "preprocess_samples")
    return has_method and any(map(is_hub_class, type(model).__mro__))


def library_of(model: Any) -> ModuleType:
    """Returns the `keras` or `tf_keras` module of a model; else raises TypeError."""
    roots = {root_of(cls) for cls in type(model).__mro__}
    for name in LIBRARIES:
        library = sys.modules.get(name)
        if name in roots and library and isinstance(model, library.Model):
            return library
    raise TypeError(
        f"Expected a Keras model, received {model!r:.80} of type "
        f"{type(model).__module__}.{type(model).__qualname__}. Pass a `keras.Model` "
        "(wrap a single layer in `keras.Sequential`), or give the path of a saved "
        "model to `mgpu.load`."
    )


def layers_of(model: Any) -> list[Any]:
    """Returns the model and all layers in it, at any depth, in a fixed order.

    A task's preprocessors are left out. Keras has no public access to layers in
    wrappers. `_flatten_layers` exists since tf.keras 2.3; tried with Keras 3.15 and
    tf_keras 2.21.
    """
    return _without_preprocessing(model, model._flatten_layers())


def parts_of(layer: Any) -> list[Any]:
    """Returns the layers directly within a layer, in the order of `layers_of`."""
    parts = layer._flatten_layers(recursive=False, include_self=False)
    return _without_preprocessing(layer, parts)


def _without_preprocessing(owner: Any, layers: Iterable[Any]) -> list[Any]:
    found = list(layers)
    tasks = filter(is_hub_task, [owner, *found])
    apart = {id(part) for task in tasks for part in preprocessing_layers(task)}
    return [layer for layer in found if id(layer) not in apart]


def preprocessing_layers(task: Any) -> list[Any]:
    """Returns the layers of a KerasHub task's preprocessors, earlier ones included."""
    parts = []
    for part in task._flatten_layers(recursive=False, include_self=False):
        kinds = {cls.__name__ for cls in type(part).__mro__ if is_hub_class(cls)}
        if part is task.preprocessor or "PreprocessingLayer" in kinds:
            parts += part._flatten_layers()
    return parts


def input_layer(model: Any, tensor: Any) -> Any | None:
    """Returns the input layer of a model's input; None if it has none."""
    kind = library_of(model).layers.InputLayer
    layers = (layer for layer in layers_of(model) if isinstance(layer, kind))
    return next((layer for layer in layers if layer.output is tensor), None)


def symbols_of(model: Any, ends: str) -> list[Any]:
    """Returns a model's symbolic "inputs" or "outputs"; empty if it has none yet."""
    # For a Sequential model without an `Input`, before its first call, later Keras 3
    # raises AttributeError, Keras 3.5 ValueError, and tf_keras returns None.
    try:
        return list(getattr(model, ends, None) or ())
    except ValueError:
        return []


def _is_sequential(model: Any) -> bool:
    return isinstance(model, library_of(model).Sequential)


def has_free_batch(model: Any) -> bool:
    """Whether the batch size that a model declares does not restrict its use."""
    return _is_sequential(model) and not stateful_layers(model)


def stateful_layers(model: Any) -> list[Any]:
    """Returns the recurrent layers that keep their state from batch to batch."""
    recurrent = [x for x in layers_of(model) if hasattr(x, "return_sequences")]
    return [layer for layer in recurrent if getattr(layer, "stateful", False)]


def input_spec_of(model: Any) -> Nest | None:
    """Returns `DeclaredInput`s in the structure of the model's inputs."""
    tensors = declared(model, "inputs")
    if tensors is None:
        return None
    return tf.nest.map_structure(lambda tensor: _spec(model, tensor), tensors)


def takes_sparse(model: Any) -> bool:
    """Whether a model declares an input to be sparse."""
    return any(map(_is_sparse, symbols_of(model, "inputs")))


def float_dtype_of(model: Any) -> tf.DType:
    """Returns `floatx`, or the dtype that a model computes in if that is wider."""
    floatx = tf.as_dtype(keras.config.floatx())
    computed = tf.as_dtype(getattr(model, "compute_dtype", None) or floatx)
    is_wider = computed.is_floating and computed.size > floatx.size
    return computed if is_wider else floatx


def output_shapes_of(model: Any) -> Nest | None:
    """Returns `tf.TensorShape`s in the structure of the model's outputs."""
    tensors = declared(model, "outputs")
    if tensors is None:
        return None
    batch = symbols_of(model, "inputs")[0].shape[0]

    def shape(tensor: Any) -> tf.TensorShape:
        # Only an output with the input's batch axis is free: a constant one is not.
        is_batch = len(tensor.shape) > 0 and tensor.shape[0] == batch
        return _shape(tensor, is_batch and has_free_batch(model))

    return tf.nest.map_structure(shape, tensors)


def declared(model: Any, ends: str) -> Nest | None:
    """Returns a model's symbolic "inputs" or "outputs" in the user's structure."""
    tensors = symbols_of(model, ends)
    if tensors and _is_sequential(model):
        return tensors[0]
    return getattr(model, ends[:-1]) if tensors else None


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


def note_strategy(model: Any, strategy: tf.distribute.Strategy) -> None:
    """Makes `evaluate` and `fit` of a model run under a strategy.

    There is no public way to change it. Tried with Keras 3.15 and tf_keras 2.21.
    """
    is_legacy = library_of(model) is not keras
    name = "_distribution_strategy" if is_legacy else "_distribute_strategy"
    setattr(model, name, strategy)


def check_supported(model: Any, strategy: tf.distribute.Strategy) -> None:
    """Raises TypeError or ValueError if a model cannot run on every replica."""
    check_backend(library_of(model))
    num_replicas = strategy.num_replicas_in_sync
    stateful = [layer.name for layer in stateful_layers(model)]
    if num_replicas > 1 and stateful:
        raise ValueError(
            f"Model {model.name!r} has stateful recurrent layers {stateful}: each "
            "batch continues where the one before it ended, so the batches cannot be "
            f"spread over {num_replicas} replicas. Use one device, or build the "
            "layers with `stateful=False`."
        )


def check_backend(library: ModuleType) -> None:
    """Raises ValueError for Keras 3 on any backend but TensorFlow."""
    if library is keras and keras.backend.backend() != "tensorflow":
        raise ValueError(
            f"Keras runs on the backend {keras.backend.backend()!r}, expected "
            "'tensorflow'. Set the environment variable KERAS_BACKEND=tensorflow "
            "before Keras is imported."
        )
