"""A model built elsewhere, built again under a strategy.

Guarantees:

* The original is left as it is; the rebuilt model shares no variable with it.
* The rebuilt model has the original's layers, state and compile settings; if it runs
  user code, its results were compared. If that is impossible, the error says how to
  build the model in the scope instead.
"""

import warnings
from types import ModuleType
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.agreement import disagreement
from keras_mgpu_strategy.models.carrying import carry_attributes
from keras_mgpu_strategy.models.cloning import clone
from keras_mgpu_strategy.models.compile_settings import copy_compile
from keras_mgpu_strategy.models.libraries import library_of
from keras_mgpu_strategy.models.precision import check_not_quantized, check_precision
from keras_mgpu_strategy.models.state import check_same, copy_flags, copy_state
from keras_mgpu_strategy.system.causes import cause_of


def rebuild(
    model: Any, strategy: tf.distribute.Strategy, precision: str | None = None
) -> Any:
    """Returns a copy of a Keras model whose variables `strategy` mirrors.

    Args:
        model: The original.
        strategy: The strategy to mirror the copy with.
        precision: Dtype of the copy's floats; None keeps the original's.

    Raises:
        ValueError: If Keras cannot make the model from its configuration, or makes a
            different one; if a layer cannot have that precision; or if the copy
            computes something else.
    """
    library = library_of(model)
    try:
        new = _clone(model, strategy, library, precision)
    # User code runs here (constructors, get_config, build) and may raise anything.
    except Exception as error:
        message = _how_to_build(model, cause_of(error))
        if precision:
            message = _how_to_convert(model, precision, error)
        raise ValueError(message) from error
    copy_state(model, new)
    difference = None if precision else disagreement(model, new)
    if difference:
        raise ValueError(_how_to_build(model, difference))
    copy_compile(model, new, strategy, library)
    return new


def _clone(
    model: Any,
    strategy: tf.distribute.Strategy,
    library: ModuleType,
    precision: str | None,
) -> Any:
    if precision:
        check_not_quantized(model)
    # Keras warns about lambdas in configurations, which never leave this process here,
    # and about layers that it cannot build, which the comparison finds.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with strategy.scope():
            new = clone(model, library, precision)
        copy_flags(model, new)
        # Outside the scope: variables of another strategy cannot be read in it.
        check_same(model, new, precision)
        carry_attributes(model, new, strategy, precision)
    check_precision(new, precision)
    return new


def _how_to_convert(model: Any, precision: str, error: Exception) -> str:
    return (
        f"Model {model.name!r} ({type(model).__name__}) cannot be rebuilt with "
        f"precision={precision!r}: {cause_of(error)}\n"
        "Every layer must be made from its configuration and take its dtype from its "
        "policy (`self.compute_dtype`). Pass precision=None to run the model as it is."
    )


def _how_to_build(model: Any, cause: str) -> str:
    return (
        f"Model {model.name!r} ({type(model).__name__}) cannot be rebuilt on every "
        f"device: {cause}\n"
        "Build or load it where nothing has to be rebuilt, inside a scope:\n"
        "    with mgpu.scope():\n"
        "        model = ...\n"
        "or give its class a `get_config` that returns all arguments of `__init__`, "
        "and register it with `keras.saving.register_keras_serializable`."
    )
