"""The variables of a model: where they live, and their values.

Those in attributes that Keras does not track count, too. "Mirrored" means one copy on
each of the strategy's worker devices and nowhere else, made by this strategy object.
Values are what saving the model would store.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.attributes import (
    is_layer,
    is_variable,
    own_attributes,
    reachable,
)
from keras_mgpu_strategy.models.libraries import is_library_class, layers_of

MEAN, SUM = tf.VariableAggregation.MEAN, tf.VariableAggregation.SUM

# No `VarHandleOp` kernel for accelerators in TensorFlow 2.21.
_HOST_DTYPES = frozenset({tf.int32, tf.string})
_DISTRIBUTED = tf.distribute.DistributedValues


def variables_of(model: Any) -> list[Any]:
    """Returns all variables of a Keras model or of a loaded SavedModel."""
    try:
        variables = getattr(model, "variables", ())
    except ValueError:  # tf_keras, until the model is built
        layers = [layer for layer in layers_of(model) if layer.built]
        variables = [variable for layer in layers for variable in layer.variables]
    # tf_keras lists the vocabularies of lookup layers among the variables. They are
    # tables on the host, which all replicas read.
    return [variable for variable in variables if hasattr(variable, "assign")]


def hidden_variables(model: Any) -> list[Any]:
    """Returns, in a fixed order, variables in attributes that Keras does not track."""
    if not is_layer(model):
        return []
    known = {id(variable) for variable in variables_of(model)}
    users = [x for x in layers_of(model) if not is_library_class(type(x))]
    values = [value for x in users for value in own_attributes(x).values()]
    found = filter(is_variable, reachable(values))
    return [variable for variable in found if id(variable) not in known]


def name_of(variable: Any) -> str:
    """Returns the full name of a Keras or TensorFlow variable."""
    is_plain = value_of(variable) is variable
    return str(variable.name if is_plain else variable.path)


def value_of(variable: Any) -> Any:
    """Returns the TensorFlow variable inside a Keras 3 variable, or itself."""
    is_plain = isinstance(variable, tf.Variable | _DISTRIBUTED)
    return variable if is_plain else variable.value


def is_mirrored(variable: Any, strategy: tf.distribute.Strategy) -> bool:
    """Whether a variable has one copy on each worker device of a strategy."""
    value = value_of(variable)
    if not isinstance(value, _DISTRIBUTED) or value.distribute_strategy is not strategy:
        return False
    copies = strategy.experimental_local_results(value)
    devices = strategy.extended.worker_devices
    return len(copies) == len(devices) and all(map(lives_on, copies, devices))


def lives_on(variable: Any, device: str) -> bool:
    """Whether a variable is on a device, or of a host-only dtype and on the host."""
    if variable.device == device:
        return True
    names = (variable.device, device)
    kind, asked = (tf.DeviceSpec.from_string(name).device_type for name in names)
    return variable.dtype in _HOST_DTYPES and kind == "CPU" and asked != "CPU"


def check_mirrored(variables: Iterable[Any], strategy: tf.distribute.Strategy) -> None:
    """Raises ValueError naming the first variable that is not mirrored, if any."""
    for variable in variables:
        if is_mirrored(variable, strategy):
            continue
        copies = strategy.experimental_local_results(value_of(variable))
        raise ValueError(
            f"Variable {name_of(variable)!r} has copies on "
            f"{[copy.device for copy in copies]}, expected one copy on each of "
            f"{list(strategy.extended.worker_devices)}. Build the whole model, all "
            "its layers included, inside `mgpu.scope()`."
        )


def strategy_of(model: Any) -> tf.distribute.Strategy | None:
    """Returns the strategy that all variables of a model are mirrored over, if any."""
    variables = variables_of(model) or _hidden_copies(model)
    first = value_of(variables[0]) if variables else None
    strategy = getattr(first, "distribute_strategy", None)
    is_one = isinstance(strategy, tf.distribute.Strategy)
    return strategy if is_one and belongs_to(model, strategy) else None


def belongs_to(model: Any, strategy: tf.distribute.Strategy) -> bool:
    """Whether a model can be used under a strategy as it is."""
    variables = [*variables_of(model), *_hidden_copies(model)]
    return all(is_mirrored(variable, strategy) for variable in variables)


def _hidden_copies(model: Any) -> list[Any]:
    hidden = hidden_variables(model)
    return [v for v in hidden if isinstance(value_of(v), _DISTRIBUTED)]


def copies_of(variable: Any) -> list[Any]:
    """Returns a variable's copy on each replica; the variable itself if not copied."""
    value = value_of(variable)
    if not isinstance(value, _DISTRIBUTED):
        return [value]
    return list(value.distribute_strategy.experimental_local_results(value))


def combined_by(variable: Any) -> tf.VariableAggregation | None:
    """Returns how saving combines copies that may differ; None if they may not."""
    value = value_of(variable)
    is_local = value.synchronization == tf.VariableSynchronization.ON_READ
    return value.aggregation if is_local else None


def aggregate(variable: Any) -> tf.Tensor:
    """Returns what saving a variable stores, computed as TensorFlow does."""
    copies = [copy.read_value() for copy in copies_of(variable)]
    how = combined_by(variable)
    if len(copies) == 1 or how not in (MEAN, SUM):
        return copies[0]
    total = tf.add_n(copies)
    return tf.cast(total / len(copies), total.dtype) if how == MEAN else total


def host_value(value: Any) -> np.ndarray:
    """Returns the value of a variable or array, read in any strategy's scope."""
    if not hasattr(value, "assign"):
        return np.asarray(value)
    if combined_by(value) == MEAN:
        copies = [np.asarray(copy) for copy in copies_of(value)]
        if all(np.array_equal(copies[0], copy) for copy in copies):
            return copies[0]  # a mean of equal numbers can differ from them
    return np.asarray(aggregate(value))


def assign(variable: Any, value: np.ndarray) -> None:
    """Sets a variable so that `host_value` returns that value."""
    copies = copies_of(variable)
    if len(copies) == 1 or combined_by(variable) != SUM:
        variable.assign(value)
        return
    # TensorFlow would give each copy a share of the sum, rounded for integers.
    for index, copy in enumerate(copies):
        copy.assign(np.zeros_like(value) if index else value)


def outside_scopes(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function outside of any scope, where all variables can be read."""
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()
