"""New models of the same architecture, with their own variables.

Shared layers are shared in the clone. Layers made when the original was built, or given
later, are included. Names, policies and configurations are the original's, except for a
requested precision; functions and a task's preprocessor are the same objects.
"""

import inspect
from types import ModuleType
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.attributes import holds_layers, is_layer, own_attributes
from keras_mgpu_strategy.models.carrying import carry_attributes
from keras_mgpu_strategy.models.custom_objects import (
    custom_objects_of,
    functions_of,
    give_functions,
    refer_to_lambdas,
)
from keras_mgpu_strategy.models.libraries import (
    input_layer,
    is_hub_task,
    is_library_class,
    layers_of,
    parts_of,
    symbols_of,
)
from keras_mgpu_strategy.models.precision import in_precision, precision_scope
from keras_mgpu_strategy.models.state import assign_all
from keras_mgpu_strategy.models.variables import variables_of


def clone(model: Any, library: ModuleType, precision: str | None) -> Any:
    """Returns a new model like `model`. Call it in the scope that will own it."""
    with precision_scope(library, precision, custom_objects_of(model)):
        return _Cloner(library, precision)(model)


class _Cloner:
    """Clones each layer and model once, however often it is used."""

    def __init__(self, library: ModuleType, precision: str | None):
        self._library = library
        self._precision = precision
        self._clones: dict[int, Any] = {}

    def __call__(self, layer: Any) -> Any:
        if id(layer) not in self._clones:
            self._clones[id(layer)] = self._clone(layer)
        return self._clones[id(layer)]

    def _clone(self, layer: Any) -> Any:
        if not isinstance(layer, self._library.layers.Layer):
            # A graph node, such as a mask's comparison.
            return type(layer).from_config(layer.get_config())
        if isinstance(layer, self._library.Model) and is_library_class(type(layer)):
            if isinstance(layer, self._library.Sequential):
                return self._sequential(layer)
            if symbols_of(layer, "inputs"):
                return self._functional(layer)
        return self._from_config(layer)

    def _sequential(self, model: Any) -> Any:
        layers = [self._input(model, tensor) for tensor in symbols_of(model, "inputs")]
        new = type(model)([*layers, *map(self, model.layers)], name=model.name)
        new.trainable = model.trainable
        if self._precision:
            # Ids that come as floats must reach an Embedding as they are.
            new.autocast = False
        if model.built and not new.built:
            new.build_from_config(model.get_build_config())
        self._give_lacking(model, new)
        return new

    def _functional(self, model: Any) -> Any:
        # A view without compile settings: `clone_model` would serialise them.
        view = self._library.Model(model.input, model.output, name=model.name)
        for part in model.layers:
            if set(map(id, symbols_of(part, "inputs"))) & set(map(id, model.inputs)):
                self(part)  # makes inputs of its own, which the two are to share
        inputs = None
        if self._library.__name__ == "keras":  # whose inputs would lose their kind
            inputs = tf.nest.map_structure(
                lambda tensor: self._input(model, tensor), model.input
            )
        new = self._library.models.clone_model(view, inputs, clone_function=self)
        self._give_lacking(model, new)
        return new

    def _input(self, model: Any, tensor: Any) -> Any:
        layer = input_layer(model, tensor)
        if layer is not None:
            if id(layer) not in self._clones:  # models may share inputs
                self._clones[id(layer)] = type(layer).from_config(layer.get_config())
            return self._clones[id(layer)].output
        return self._library.Input(
            batch_shape=tuple(tensor.shape), dtype=tensor.dtype, name=tensor.name
        )

    def _from_config(self, layer: Any) -> Any:
        config = self._library.saving.serialize_keras_object(layer)
        config.pop("compile_config", None)
        build_config = config.pop("build_config", None)
        if is_hub_task(layer):
            config["config"]["preprocessor"] = None
        config = in_precision(config, self._precision)
        _drop_unaccepted(config["config"], type(layer))
        if not isinstance(layer, self._library.layers.Lambda):  # it reads bytecode
            refer_to_lambdas(layer, config["config"])
        new = self._built(layer, config, build_config, is_early=False)
        if _lacking(layer, new):  # what is built takes no further layers
            new = self._built(layer, config, build_config, is_early=True)
        ends = [symbols_of(part, "inputs") for part in (layer, new)]
        for before, after in zip(*ends, strict=False):
            made = input_layer(new, after)
            self._clones.setdefault(id(input_layer(layer, before)), made)
        return new

    def _built(
        self, layer: Any, config: dict[str, Any], build_config: Any, *, is_early: bool
    ) -> Any:
        # Safe to load: the configuration was just made in this process.
        new = self._library.saving.deserialize_keras_object(config, safe_mode=False)
        if is_early:
            self._give_lacking(layer, new)
        strategy = tf.distribute.get_strategy()
        carry_attributes(layer, new, strategy, self._precision, is_early=True)
        if layer.built and build_config and not new.built:
            new.build_from_config(build_config)
            new.built = True
        _build_lazy(layer, new)
        for source, target in zip(layers_of(layer), layers_of(new), strict=False):
            give_functions(functions_of(source), target)
        _build_parts(layer, new)
        if is_hub_task(layer):
            # It holds no weights, but has vocabularies that a configuration lacks.
            new.preprocessor = layer.preprocessor
        return new

    def _give_lacking(self, source: Any, target: Any) -> None:
        for owner, name, value in _lacking(source, target):
            setattr(owner, name, self._mapped(value))

    def _mapped(self, value: Any) -> Any:
        if isinstance(value, dict):
            return {key: self._mapped(inner) for key, inner in value.items()}
        if isinstance(value, list | tuple):
            return [self._mapped(inner) for inner in value]
        if not is_layer(value):
            return value
        try:
            new = self(value)
        except Exception:
            if variables_of(value):
                raise
            return value
        # A model may not track the variables of layers outside its graph.
        assign_all(variables_of(value), variables_of(new))
        return new


def _drop_unaccepted(config: dict[str, Any], cls: type) -> None:
    """Drops what Keras adds to every configuration but `__init__` does not take."""
    owner = next(c for c in cls.__mro__ if "from_config" in vars(c))
    parameters = inspect.signature(cls.__init__).parameters.values()
    if not is_library_class(owner) or any(p.kind is p.VAR_KEYWORD for p in parameters):
        return
    names = {parameter.name for parameter in parameters}
    for key in {"name", "trainable", "dtype"} - names:
        config.pop(key, None)


def _lacking(source: Any, target: Any) -> list[tuple[Any, str, Any]]:
    """Returns (copy, name, value) of attributes with layers that the copy lacks."""
    here = vars(target)
    found = [
        (target, name, value)
        for name, value in own_attributes(source).items()
        if holds_layers(value) and not holds_layers(here.get(name))
    ]
    for pair in zip(parts_of(source), parts_of(target), strict=False):
        found += _lacking(*pair)
    return found


def _build_lazy(source: Any, target: Any) -> None:
    """Builds, outermost first, layers that make others when they are built."""
    lacks = len(parts_of(source)) > len(parts_of(target))
    if lacks and source.built and not target.built:
        target.build_from_config(source.get_build_config())
        target.built = True
    for pair in zip(parts_of(source), parts_of(target), strict=False):
        _build_lazy(*pair)


def _build_parts(source: Any, target: Any) -> None:
    """Builds, innermost first, what Keras cannot build from shapes alone."""
    pairs = list(zip(layers_of(source), layers_of(target), strict=False))
    for old, new in reversed(pairs):
        if len(variables_of(old)) > len(variables_of(new)):
            new.build_from_config(old.get_build_config())
            new.built = old.built
