"""Keras models, mirrored on every replica.

Guarantees:

* A model of this strategy, and of the precision asked for, is used as it is. Any
  other is rebuilt under it, with its weights and compile settings; the original is
  left alone.
* Afterwards every variable is mirrored over exactly the strategy's devices, or an
  error names the one that is not.
"""

from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.compile_settings import compiled_for_xla, copy_compile
from keras_mgpu_strategy.models.libraries import (
    check_supported,
    is_library_class,
    library_of,
    note_strategy,
)
from keras_mgpu_strategy.models.mirroring import (
    check_mirrored,
    is_mirrored,
    variables_of,
)
from keras_mgpu_strategy.models.precision import (
    check_precision,
    has_precision,
    precision_scope,
    with_float32_outputs,
)
from keras_mgpu_strategy.models.rebuild import rebuild
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.specs import input_spec_of, output_shapes_of
from keras_mgpu_strategy.types import Nest


def replicate(
    model: Any, strategy: tf.distribute.Strategy, precision: str | None = None
) -> ReplicatedModel:
    """Puts a Keras model on every replica of a strategy.

    Args:
        model: Any Keras 3 or tf_keras model. One not built yet is returned as it
            is, for `build`.
        strategy: The strategy to mirror it with.
        precision: "float32", "bfloat16" or "float16": dtype of all float variables
            and computations; outputs of floats are then float32. None leaves the
            model and its outputs as they are.

    Raises:
        TypeError: If `model` is not a Keras model.
        ValueError: If Keras is on another backend, if the model is stateful and
            there are several replicas, if it cannot be rebuilt, if a layer forces
            another dtype, or a weight is too large for the precision.
    """
    check_supported(model, strategy)
    variables = variables_of(model)
    is_ours = all(is_mirrored(variable, strategy) for variable in variables)
    is_kept = is_ours and has_precision(model, precision)
    for_xla = compiled_for_xla(model)
    if not is_kept:
        model = rebuild(model, strategy, precision)
        check_mirrored(variables_of(model), strategy)
    return ReplicatedModel(
        model=model,
        strategy=strategy,
        call=_forward(model, precision),
        input_spec=input_spec_of(model),
        output_shapes=output_shapes_of(model),
        precision=precision,
        # One that was rebuilt is compiled under the strategy, for which Keras says no.
        compiled_for_xla=lambda: compiled_for_xla(model) if is_kept else for_xla,
    )


def build(replicated: ReplicatedModel, inputs: Nest) -> None:
    """Creates the variables of a model that is not built yet, on every replica.

    Does nothing for a built model.

    Args:
        replicated: From `replicate`.
        inputs: Nest of NumPy arrays or tensors of at least one row.

    Raises:
        ValueError: If the model creates variables that are not mirrored, or of
            another precision.
    """
    if replicated.is_built:
        return
    model, strategy = replicated.model, replicated.strategy
    precision = replicated.precision
    with strategy.scope(), precision_scope(library_of(model), precision):
        replicated.call(tf.nest.map_structure(tf.convert_to_tensor, inputs))
        check_mirrored(variables_of(model), strategy)
    check_precision(model, precision)
    note_strategy(model, strategy)
    copy_compile(model, model, strategy, library_of(model))


def _forward(model: Any, precision: str | None) -> Callable[[Nest], Nest]:
    call = _predict_step(model)
    return with_float32_outputs(call, precision) if precision else call


def _predict_step(model: Any) -> Callable[[Nest], Nest]:
    """Returns the forward pass that Keras' own `predict` would run."""
    owner = next(cls for cls in type(model).__mro__ if "predict_step" in vars(cls))
    if is_library_class(owner):
        return lambda inputs: model(inputs, training=False)
    return lambda inputs: model.predict_step((inputs,))
