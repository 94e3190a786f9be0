"""The function of a loaded SavedModel that prediction calls.

Inputs reach the arguments they are meant for: by name, or by position if the file keeps
an order. If Keras wrote the file, outputs have the structure of `predict`; those of
another signature are a dict.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.output_paths import unknown
from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class Endpoint:
    """A callable of a SavedModel; `input_spec` is one named spec, a list or a dict.

    `outputs` are the names of those that were chosen; None for all.
    """

    function: Callable[[Nest], Nest]
    input_spec: Nest
    concrete: Any
    outputs: tuple[str, ...] | None = None

    @property
    def output_shapes(self) -> Nest:
        """Nest of `tf.TensorShape`."""
        outputs = self._chosen(self.concrete.structured_outputs)
        return tf.nest.map_structure(lambda leaf: tf.TensorShape(leaf.shape), outputs)

    def __call__(self, inputs: Nest) -> Nest:
        """Runs the function on a nest of tensors or arrays in the user's order."""
        return self._chosen(self.function(_arranged(inputs, self.input_spec)))

    def _chosen(self, results: Nest) -> Nest:
        if self.outputs is None:
            return results
        chosen = {name: results[name] for name in self.outputs}
        return chosen if len(chosen) > 1 else chosen[self.outputs[0]]


def endpoint_of(
    loaded: Any, path: str, outputs: tuple[str, ...] | None = None
) -> Endpoint:
    """Returns a Keras export's `serve`, what tf_keras saved, or else the signature.

    With names of `outputs`, only those; ValueError if one is unknown.
    """
    endpoint = _endpoint_of(loaded, path)
    if outputs is None:
        return endpoint
    if not isinstance(endpoint.concrete.structured_outputs, dict):
        endpoint = _with_names(endpoint, loaded, path)
    names = sorted(endpoint.concrete.structured_outputs)
    for name in outputs:
        if name not in names:
            raise unknown(name, names, f"SavedModel {path!r}")
    return dataclasses.replace(endpoint, outputs=outputs)


def _with_names(endpoint: Endpoint, loaded: Any, path: str) -> Endpoint:
    """The signature of the same function, which names outputs as they were saved."""
    concrete: Any = dict(getattr(loaded, "signatures", {})).get("serving_default")
    names = [spec.name for spec in tf.nest.flatten(endpoint.input_spec)]
    if concrete is None or {*names} != {*concrete.structured_input_signature[1]}:
        outputs = tf.nest.flatten(endpoint.concrete.structured_outputs)
        raise ValueError(
            f"The outputs of SavedModel {path!r} have no names: it has {len(outputs)}, "
            f"of shapes {[tuple(output.shape) for output in outputs]}. Leave out "
            "`outputs`, or save it from a function that returns a dict."
        )

    def call(inputs: Nest) -> Nest:
        return concrete(**dict(zip(names, tf.nest.flatten(inputs), strict=True)))

    return dataclasses.replace(endpoint, function=call, concrete=concrete)


def _endpoint_of(loaded: Any, path: str) -> Endpoint:
    serve: Any = getattr(loaded, "serve", None)
    functions = getattr(serve, "concrete_functions", ())
    if functions and not functions[0].structured_input_signature[1]:
        specs = functions[0].structured_input_signature[0]
        if len(specs) == 1:
            return Endpoint(serve, specs[0], functions[0])
        return Endpoint(lambda inputs: serve(*inputs), list(specs), functions[0])
    call = _call_of_tf_keras(loaded)
    if call is not None:
        spec, *settings = call.structured_input_signature[0]
        return Endpoint(lambda given: loaded(given, *settings), spec, call)
    concrete = _signature(loaded.signatures, path)
    named = concrete.structured_input_signature[1]
    if len(named) == 1:
        ((name, spec),) = named.items()
        return Endpoint(lambda given: concrete(**{name: given}), spec, concrete)
    return Endpoint(lambda inputs: concrete(**inputs), dict(named), concrete)


def _call_of_tf_keras(loaded: Any) -> Any:
    """The forward pass in a file of tf_keras or Keras 2; None with a user's signature.

    Keras' own is `_default_save_signature`. Tried with files of tf_keras 2.21.
    """
    default = getattr(loaded, "_default_save_signature", None)
    functions: Any = getattr(loaded, "__call__", None)  # noqa: B004 - what was saved
    functions = getattr(functions, "concrete_functions", ())
    serving = dict(getattr(loaded, "signatures", {})).get("serving_default")
    if default is None or serving is None:
        return None
    own = getattr(default, "concrete_functions", [default])
    if _names(serving) not in map(_names, own):
        return None
    for function in functions:
        (_, *settings), keywords = function.structured_input_signature
        if not keywords and all(setting in (False, None) for setting in settings):
            return function
    return None


def _names(concrete: Any) -> tuple[set[str], set[str]]:
    inputs = tf.nest.flatten(concrete.structured_input_signature)
    specs = [leaf for leaf in inputs if isinstance(leaf, tf.TensorSpec)]
    outputs = concrete.structured_outputs
    names = outputs if isinstance(outputs, dict) else ()
    return {str(spec.name) for spec in specs}, set(names)


def _signature(signatures: Any, path: str) -> Any:
    names = sorted(signatures)
    if "serving_default" in names:
        return signatures["serving_default"]
    if len(names) == 1:
        return signatures[names[0]]
    raise ValueError(
        f"SavedModel {path!r} has the signatures {names}, expected an endpoint "
        "'serve' or a signature 'serving_default'. Save it with "
        "`model.export(path)`, or with `tf.saved_model.save(module, path, "
        "signatures=function)`."
    )


def _arranged(inputs: Nest, spec: Nest) -> Nest:
    """The inputs as tensors in the structure of a spec, by name or in its order."""
    is_named, specs = isinstance(spec, dict), tf.nest.flatten(spec)
    names = sorted(spec) if is_named else [one.name for one in specs]
    if isinstance(inputs, dict):
        if set(inputs) != set(names):
            raise ValueError(
                f"Received inputs named {sorted(inputs)}, expected {sorted(names)}."
            )
        found = [inputs[name] for name in names]
    elif is_named:
        raise ValueError(
            f"Received inputs as {type(inputs).__name__}, expected a dict with the "
            f"names {sorted(names)}: the SavedModel keeps no order of its inputs."
        )
    else:
        found = list(inputs) if isinstance(inputs, list | tuple) else [inputs]
        if len(found) != len(names):
            raise ValueError(
                f"Received {len(found)} inputs, expected {len(names)}: {specs}."
            )
    return tf.nest.pack_sequence_as(spec, list(map(_cast, found, specs)))


def _cast(value: Any, spec: tf.TensorSpec) -> Any:
    tensor = tf.convert_to_tensor(value)
    if tensor.dtype == spec.dtype:
        return tensor
    is_float = tensor.dtype.is_floating
    widens = spec.dtype.is_floating or (spec.dtype.is_integer and not is_float)
    if widens and (is_float or tensor.dtype.is_integer):
        return tf.cast(tensor, spec.dtype)
    raise ValueError(
        f"Input {spec.name!r} has dtype {tensor.dtype.name}, expected "
        f"{spec.dtype.name}. Convert it before predicting."
    )
