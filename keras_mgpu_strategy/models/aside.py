"""State that a model file does not keep, to be given to the model read from it.

Guarantees:

* Attributes, variables that Keras does not track and the seeds of random layers are
  those of the original.
* It is an error if the model read has other layers or settings than the original, or
  if an attribute cannot be sent and is not what the constructor makes.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from keras_mgpu_strategy.models.attributes import holds_parts, own_attributes
from keras_mgpu_strategy.models.described import described, described_attributes
from keras_mgpu_strategy.models.draws import is_seed
from keras_mgpu_strategy.models.libraries import is_library_class, parts_of
from keras_mgpu_strategy.models.state import check_equal, settings_of
from keras_mgpu_strategy.models.values import assign, host_value
from keras_mgpu_strategy.models.variables import hidden_variables, variables_of


@dataclasses.dataclass(frozen=True)
class _OfLayer:
    """What a file does not keep of a layer.

    Args:
        kind: Name of its class.
        settings: As returned by `settings_of`.
        values: Name -> value of attributes.
        made: Name -> description of attributes that the constructor must make.
    """

    kind: str
    settings: Any
    values: dict[str, Any]
    made: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Aside:
    """What a file does not keep of a model.

    Args:
        layers: By their place: the index among the parts of a layer, at each depth.
        hidden: Values of the variables that Keras does not track.
        seeds: Values of the variables that are states of seeds.
    """

    layers: dict[tuple[int, ...], _OfLayer]
    hidden: list[np.ndarray]
    seeds: list[np.ndarray]

    def give_to(self, model: Any) -> None:
        """Restores the state in a model that was read from the file.

        Raises:
            ValueError: If the model is not like the one that was saved.
        """
        for place, layer in _placed(model):
            if place in self.layers:
                _give(self.layers[place], layer)
        hidden = hidden_variables(model)
        shapes = [tuple(variable.shape) for variable in hidden]
        wanted = [value.shape for value in self.hidden]
        check_equal("shapes of variables in attributes", wanted, shapes)
        for variable, value in zip(hidden, self.hidden, strict=True):
            assign(variable, value)
        # Seeds are matched by position only.
        for variable, value in zip(_seeds(model), self.seeds, strict=False):
            assign(variable, value)


def put_aside(model: Any, can_travel: Callable[[Any], bool]) -> Aside:
    """Returns what a file does not keep of a model.

    Args:
        model: The model that is saved.
        can_travel: Whether a value can be sent along with the file.
    """
    layers = {place: _of(layer, can_travel) for place, layer in _placed(model)}
    hidden = list(map(host_value, hidden_variables(model)))
    return Aside(layers, hidden, list(map(host_value, _seeds(model))))


def _placed(
    layer: Any, place: tuple[int, ...] = ()
) -> Iterator[tuple[tuple[int, ...], Any]]:
    yield place, layer
    for index, part in enumerate(parts_of(layer)):
        yield from _placed(part, (*place, index))


def _seeds(model: Any) -> list[Any]:
    return [variable for variable in variables_of(model) if is_seed(variable)]


def _of(layer: Any, can_travel: Callable[[Any], bool]) -> _OfLayer:
    kind, settings = type(layer).__name__, settings_of(layer)
    if is_library_class(type(layer)):
        return _OfLayer(kind, settings, {}, {})
    own = own_attributes(layer)
    values = {k: v for k, v in own.items() if not holds_parts(v) and can_travel(v)}
    made = described_attributes(layer)
    left = {name: made[name] for name in own.keys() - values.keys()}
    return _OfLayer(kind, settings, values, left)


def _give(kept: _OfLayer, layer: Any) -> None:
    label = f"layer {layer.name!r}"
    check_equal(f"class of {label}", kept.kind, type(layer).__name__)
    check_equal(f"settings of {label}", kept.settings, settings_of(layer))
    vars(layer).update(kept.values)
    for name, description in kept.made.items():
        received = described(vars(layer).get(name))
        if description != received:
            raise ValueError(
                f"attribute {name!r} of {label} ({kept.kind}) cannot be sent to other "
                "processes, and is not what `__init__` or `build` make there. Let them "
                "make it from arguments that `get_config` returns, or keep what it "
                "holds in a variable."
            )
