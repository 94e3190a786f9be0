"""What a person is shown of a model: its name, and the floats that it computes with."""

from collections.abc import Iterator

import tensorflow as tf

from keras_mgpu_strategy.models.libraries import layers_of, parts_of
from keras_mgpu_strategy.models.replicated import ReplicatedModel


def names_of(replicated: ReplicatedModel) -> tuple[str, ...]:
    """Names of the models; of a SavedModel, that of its folder."""
    return tuple(each.folder or each.model.name for each in replicated.each)


def float_dtypes_of(replicated: ReplicatedModel) -> tuple[str, ...]:
    """Dtypes of floats that layers compute with; empty for a SavedModel."""
    if replicated.precision:
        return (replicated.precision,)
    return tuple(sorted({x for each in replicated.each for x in _dtypes(each)}))


def _dtypes(replicated: ReplicatedModel) -> Iterator[str]:
    layers = layers_of(replicated.model) if replicated.folder is None else ()
    for layer in layers:
        dtype = getattr(layer, "compute_dtype", None)
        # An input has a dtype, and what consists of layers a policy: neither computes.
        is_input = type(layer).__name__ == "InputLayer"
        if dtype is None or is_input or parts_of(layer):
            continue
        if tf.as_dtype(dtype).is_floating:
            yield str(dtype)
