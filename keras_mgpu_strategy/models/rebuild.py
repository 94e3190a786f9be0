"""A model built elsewhere, built again under a strategy.

Guarantees:

* The original is left as it is; the rebuilt model shares no variable with it.
* What comes back has the original's layers, state and compile settings. Where that
  cannot be had, the error says how to build the model in the scope instead.
"""

import warnings
from types import ModuleType
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.cloning import clone
from keras_mgpu_strategy.models.compile_settings import copy_compile
from keras_mgpu_strategy.models.libraries import library_of
from keras_mgpu_strategy.models.state import check_same, copy_state


def rebuild(model: Any, strategy: tf.distribute.Strategy) -> Any:
    """Returns a copy of a Keras model whose variables `strategy` mirrors.

    Raises:
        ValueError: If Keras cannot make the model from its configuration, or makes
            another one.
    """
    library = library_of(model)
    try:
        new = _clone(model, strategy, library)
    # User code runs here (constructors, get_config, build): anything can come.
    except Exception as error:
        raise ValueError(_how_to_build(model, error)) from error
    copy_state(model, new)
    copy_compile(model, new, strategy, library)
    return new


def _clone(model: Any, strategy: tf.distribute.Strategy, library: ModuleType) -> Any:
    # Keras warns of lambdas in configurations, which never leave this process here,
    # and of layers that it cannot build, which the comparison finds.
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", UserWarning)
        with strategy.scope():
            new = clone(model, library)
        # Outside the scope: variables of another strategy cannot be read in it.
        check_same(model, new)
    return new


def _how_to_build(model: Any, error: Exception) -> str:
    return (
        f"Model {model.name!r} ({type(model).__name__}) was built outside this "
        "`mgpu.scope()` and cannot be rebuilt on every device: "
        f"{type(error).__name__}: {error}\n"
        "Build or load it inside the scope:\n"
        "    with mgpu.scope():\n"
        "        model = ...\n"
        "or give its class a `get_config` that returns all arguments of `__init__`, "
        "and register it with `keras.saving.register_keras_serializable`."
    )
