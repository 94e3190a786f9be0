"""Models in another floating-point precision.

Every float layer computes in it and keeps its weights in it, or an error names the
layer. Integers and strings stay as they are. No weight silently becomes infinite.
"""

import contextlib
from collections.abc import Callable, Iterator, Mapping
from types import MappingProxyType, ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.libraries import is_library_class, layers_of
from keras_mgpu_strategy.models.masks import give_masks, masks_of
from keras_mgpu_strategy.models.variables import name_of, variables_of
from keras_mgpu_strategy.types import Nest

_FLOATS = frozenset({"float16", "bfloat16", "float32", "float64"})
_POLICIES = _FLOATS | {"mixed_bfloat16", "mixed_float16"}
# Recurrent layers start with an orthogonal matrix, for which TensorFlow has no bfloat16
# kernel. The weights of the trained model replace it anyway.
_ORTHOGONAL = ("Orthogonal", "OrthogonalInitializer", "orthogonal")


@contextlib.contextmanager
def precision_scope(
    library: ModuleType,
    precision: str | None,
    custom_objects: Mapping[str, Any] = MappingProxyType({}),
) -> Iterator[None]:
    """Gives custom objects, and a precision to layers made inside without a dtype.

    In Keras 3 an inner custom object scope hides an outer one.
    """
    names = dict(custom_objects)
    if precision == "bfloat16":
        make = library.initializers.GlorotUniform
        maker = SimpleNamespace(from_config=lambda _: make())
        names |= dict.fromkeys(_ORTHOGONAL, maker)
    mixed = library.mixed_precision
    with library.saving.custom_object_scope(names), contextlib.ExitStack() as stack:
        if precision:
            stack.callback(mixed.set_global_policy, mixed.global_policy())
            mixed.set_global_policy(precision)
        yield


def in_precision(config: Any, precision: str | None) -> Any:
    """Returns a configuration with the dtype policies of all layers in it replaced."""
    if precision is None:
        return config
    if isinstance(config, list | tuple):
        items = [in_precision(item, precision) for item in config]
        return tuple(items) if isinstance(config, tuple) else items
    if not isinstance(config, dict):
        return config
    if precision == "bfloat16" and config.get("class_name") in _ORTHOGONAL:
        return {**config, "class_name": "GlorotUniform", "config": {}}
    new = {key: in_precision(item, precision) for key, item in config.items()}
    # Serialization wraps a layer's own configuration in another dict.
    is_layer = str(new.get("module")).endswith("keras.layers")
    is_wrapped = is_layer and new.get("class_name") != "InputLayer"
    inner = new.get("config") if is_wrapped else None
    for settings in (new if "trainable" in new else {}, inner or {}):
        if is_float_policy(settings.get("dtype")):
            settings["dtype"] = precision
    return new


def is_float_policy(dtype: Any) -> bool:
    """Whether a `dtype` value in a configuration is a policy of floats."""
    # Keras 3 writes a policy as an object, tf_keras as its name; a map of policies has
    # no name and is replaced as a whole.
    if not isinstance(dtype, dict):
        return dtype in _POLICIES
    is_map = dtype.get("class_name") == "DTypePolicyMap"
    return is_map or dtype.get("config", {}).get("name") in _POLICIES


def check_not_quantized(model: Any) -> None:
    """Raises ValueError naming a layer whose weights are quantized, if any."""
    for layer in layers_of(model):
        if is_quantized(layer):
            raise ValueError(
                f"layer {layer.name!r} is quantized ({layer.dtype_policy.name!r}), so "
                "its weights are not floats that could be converted"
            )


def is_quantized(layer: Any, mode: str | None = None) -> bool:
    """Whether the weights of a layer are quantized, in the given mode or in any."""
    policy: Any = getattr(layer, "dtype_policy", None)
    found = getattr(policy, "quantization_mode", None)
    return found is not None and mode in (None, found)


def check_precision(model: Any, precision: str | None) -> None:
    """Raises ValueError naming a part of the model in another precision, if any."""
    if precision is None:
        return
    layers = layers_of(model)
    for layer in filter(_is_float_layer, layers):
        dtypes = {layer.compute_dtype, layer.variable_dtype}
        if dtypes != {precision}:
            raise ValueError(
                f"layer {layer.name!r} ({type(layer).__name__}) forces the dtypes "
                f"{sorted(dtypes)}. Let its `__init__` take `**kwargs` and pass them "
                "to `super().__init__`, without a `dtype` of its own"
            )
    exempt = {id(v) for layer in filter(_chooses, layers) for v in variables_of(layer)}
    for variable in variables_of(model):
        dtype = tf.as_dtype(variable.dtype).name
        if dtype in _FLOATS - {precision} and id(variable) not in exempt:
            raise ValueError(
                f"variable {name_of(variable)!r} is forced to be {dtype}. Make it "
                "with `add_weight` without a `dtype`"
            )


def has_precision(model: Any, precision: str | None) -> bool:
    """Whether `check_precision` finds nothing."""
    try:
        check_precision(model, precision)
    except ValueError:
        return False
    return True


def _chooses(layer: Any) -> bool:
    """Whether a layer, such as tf_keras' normalization, may keep another precision."""
    is_leaf = len(layers_of(layer)) == 1
    return not _is_float_layer(layer) or (is_leaf and is_library_class(type(layer)))


def _is_float_layer(layer: Any) -> bool:
    # An input computes nothing: its declared dtype stays.
    is_input = type(layer).__name__ == "InputLayer"
    return not is_input and layer.compute_dtype in _FLOATS


def is_float(variable: Any) -> bool:
    """Whether a Keras or TensorFlow variable holds floats."""
    return tf.as_dtype(variable.dtype).name in _FLOATS


def cast_for(value: np.ndarray, variable: Any) -> np.ndarray:
    """Returns a value in a float variable's dtype, in which it must be finite too."""
    target = tf.as_dtype(variable.dtype)
    if not is_float(variable) or value.dtype == target.as_numpy_dtype:
        return value
    with np.errstate(over="ignore"):
        cast = value.astype(target.as_numpy_dtype)
    lost = np.isfinite(value) & ~np.isfinite(cast)
    if lost.any():
        worst = float(np.abs(value[lost]).max())
        raise ValueError(
            f"Variable {name_of(variable)!r} holds {worst:g}, but {target.name} goes "
            f"up to {float(target.max):g}. Pass precision='bfloat16', which has the "
            "range of float32, or precision=None."
        )
    return cast


def with_float32_outputs(
    call: Callable[[Nest], Nest], precision: str
) -> Callable[[Nest], Nest]:
    """Returns a forward pass whose outputs of any float dtype are cast to float32."""

    def cast(output: Any) -> Any:
        if not output.dtype.is_floating or output.dtype == tf.float32:
            return output
        result = tf.cast(output, tf.float32)
        give_masks(result, masks_of(output))
        return result

    def cast_call(inputs: Nest) -> Nest:
        try:
            outputs = call(inputs)
        except (TypeError, ValueError, tf.errors.InvalidArgumentError) as error:
            raise ValueError(
                f"The model fails with precision={precision!r}: {error}\nIf that is "
                "due to a dtype, let its layers compute in `self.compute_dtype`, or "
                "pass precision=None."
            ) from error
        return tf.nest.map_structure(cast, outputs)

    return cast_call
