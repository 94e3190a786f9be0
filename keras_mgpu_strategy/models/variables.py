"""Which strategy the variables of a model are mirrored over.

Guarantees:

* Every variable counts: weights, moving statistics, the state of random seeds, and
  variables in attributes of layers that Keras does not track.
* "Mirrored" means one copy on each of the strategy's worker devices and nowhere else,
  made by this strategy object. An equal strategy object is a different one: its
  variables cannot be updated in this one's replica context.
"""

from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.attributes import (
    is_layer,
    is_variable,
    own_attributes,
    reachable,
)
from keras_mgpu_strategy.models.libraries import is_library_class, layers_of

# No `VarHandleOp` kernel for accelerators in TensorFlow 2.21.
_HOST_DTYPES = frozenset({tf.int32, tf.string})


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
    """Returns the variables in attributes of layers that Keras does not track.

    In a fixed order. A SavedModel has no layers, and all its variables are tracked.
    """
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
    if isinstance(variable, tf.Variable | tf.distribute.DistributedValues):
        return variable
    return variable.value


def is_mirrored(variable: Any, strategy: tf.distribute.Strategy) -> bool:
    """Whether a variable has one copy on each worker device of a strategy."""
    value = value_of(variable)
    if not isinstance(value, tf.distribute.DistributedValues):
        return False
    if _maker(value) is not strategy:
        return False
    copies = strategy.experimental_local_results(value)
    devices = strategy.extended.worker_devices
    return len(copies) == len(devices) and all(map(lives_on, copies, devices))


def lives_on(variable: Any, device: str) -> bool:
    """Whether a TensorFlow variable is on a device.

    TensorFlow keeps variables whose dtype no accelerator can hold in host memory, and
    still makes one for each replica. These count as being on the device.
    """
    if variable.device == device:
        return True
    kind, asked = (_device_type(name) for name in (variable.device, device))
    return variable.dtype in _HOST_DTYPES and kind == "CPU" and asked != "CPU"


def check_mirrored(variables: Iterable[Any], strategy: tf.distribute.Strategy) -> None:
    """Raises ValueError naming the first variable that is not mirrored, if any."""
    for variable in variables:
        if is_mirrored(variable, strategy):
            continue
        raise ValueError(
            f"Variable {name_of(variable)!r} has copies on "
            f"{_devices(value_of(variable), strategy)}, expected one copy on each of "
            f"{list(strategy.extended.worker_devices)}. Build the whole model, all "
            "its layers included, inside `mgpu.scope()`."
        )


def strategy_of(model: Any) -> tf.distribute.Strategy | None:
    """Returns the strategy that all variables of a model are mirrored over.

    None for a model without variables, one built outside any scope, or one whose
    variables belong to different strategies.
    """
    variables = variables_of(model) or _mirrored_somewhere(hidden_variables(model))
    strategy = _maker(value_of(variables[0])) if variables else None
    if not isinstance(strategy, tf.distribute.Strategy):
        return None
    return strategy if belongs_to(model, strategy) else None


def belongs_to(model: Any, strategy: tf.distribute.Strategy) -> bool:
    """Whether a model can be used under a strategy as it is.

    Variables that Keras does not track and that are not mirrored at all do not
    matter: every replica can read them.
    """
    hidden = _mirrored_somewhere(hidden_variables(model))
    return all(is_mirrored(v, strategy) for v in [*variables_of(model), *hidden])


def _mirrored_somewhere(variables: list[Any]) -> list[Any]:
    kind = tf.distribute.DistributedValues
    return [variable for variable in variables if isinstance(value_of(variable), kind)]


def _device_type(device: str) -> str | None:
    return tf.DeviceSpec.from_string(device).device_type


def _maker(value: Any) -> Any:
    return getattr(value, "distribute_strategy", None)


def _devices(value: Any, strategy: tf.distribute.Strategy) -> list[str]:
    return [copy.device for copy in strategy.experimental_local_results(value)]


def outside_scopes(function: Callable[..., Any], *args: Any) -> Any:
    """Calls a function outside of any strategy's scope.

    TensorFlow refuses to read variables of one strategy in the scope of another, and
    has no way to leave a scope early. Scopes are per thread.
    """
    with ThreadPoolExecutor(1) as pool:
        return pool.submit(function, *args).result()
