"""Whether a model ignores the padding of rows, as far as its layers show.

A mask can get lost on its way through the layers, which `models/pad_trial.py` finds.
"""

import itertools
from collections.abc import Iterator, Mapping
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.libraries import (
    is_hub_class,
    is_library_class,
    layers_of,
    library_of,
)
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.types import Nest

MEANT = (
    "Or pass pad=mgpu.Pad(..., unmasked=True) if the results may depend on padding, "
    "and so on the lengths in the report."
)


def check_masked(replicated: ReplicatedModel, inputs: Nest) -> None:
    """Raises ValueError if nothing shows that padding in these inputs is ignored."""
    declared = [getattr(x, "name", "") for x in tf.nest.flatten(replicated.input_spec)]
    if any("mask" in str(name).lower() for name in (*declared, *_keys(inputs))):
        return
    unmasked = itertools.compress(replicated.names, map(_shows_none, replicated.each))
    for name in unmasked:
        raise ValueError(
            f"Model {name!r} shows no sign of ignoring padding: it has no Masking "
            "layer, no Embedding with mask_zero=True, no layer with a compute_mask of "
            "its own, and no input whose name contains 'mask'. So its results may "
            f"depend on the length that rows are padded to. Use one of these. {MEANT}"
        )


def _shows_none(member: ReplicatedModel) -> bool:
    if member.folder is not None:  # a SavedModel has no layers to look at
        return True
    masking = library_of(member.model).layers.Masking
    return not any(_makes_masks(layer, masking) for layer in layers_of(member.model))


def _makes_masks(layer: Any, masking: type) -> bool:
    if getattr(layer, "mask_zero", False) or isinstance(layer, masking):
        return True
    # The method of Keras' other layers passes on or drops what another layer made.
    owner = next(cls for cls in type(layer).__mro__ if "compute_mask" in vars(cls))
    return not (is_library_class(owner) or is_hub_class(owner))


def _keys(nest: Nest) -> Iterator[Any]:
    if isinstance(nest, Mapping):
        yield from nest
        nest = list(nest.values())
    if isinstance(nest, list | tuple):
        for inner in nest:
            yield from _keys(inner)
