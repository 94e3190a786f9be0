"""State that a model file does not keep, to be given to the model read from it.

That is attributes, untracked variables and seeds of random layers. A model read with
other layers or settings is an error, as is an attribute that cannot be sent and is not
what the constructor makes.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any, TypeAlias

import numpy as np

from keras_mgpu_strategy.models.attributes import (
    described,
    described_attributes,
    holds_parts,
    own_attributes,
)
from keras_mgpu_strategy.models.compile_settings import (
    Compiled,
    compiled_of,
    is_compiled,
)
from keras_mgpu_strategy.models.libraries import parts_of
from keras_mgpu_strategy.models.stand_ins import is_seed
from keras_mgpu_strategy.models.state import check_equal, settings_of
from keras_mgpu_strategy.models.variables import (
    assign,
    hidden_variables,
    host_value,
    variables_of,
)

_Place: TypeAlias = tuple[int, ...]
"""The index of a layer among the parts of another one, at each depth."""


@dataclasses.dataclass(frozen=True)
class _OfLayer:
    """What a file does not keep of a layer; described is what its class must make."""

    kind: str
    settings: Any
    values: dict[str, Any]
    made: dict[str, Any]

    def give_to(self, layer: Any) -> None:
        label = f"layer {layer.name!r}"
        check_equal(f"class of {label}", self.kind, type(layer).__name__)
        check_equal(f"settings of {label}", self.settings, settings_of(layer))
        vars(layer).update(self.values)
        for name, description in self.made.items():
            if description != described(vars(layer).get(name)):
                raise ValueError(
                    f"attribute {name!r} of {label} ({self.kind}) cannot be sent to "
                    "other processes, and is not what `__init__` or `build` make "
                    "there. Let them make it from arguments that `get_config` returns, "
                    "or keep what it holds in a variable."
                )


@dataclasses.dataclass(frozen=True)
class Aside:
    """What a file does not keep of a model."""

    layers: dict[_Place, _OfLayer]
    hidden: list[np.ndarray]
    seeds: list[np.ndarray]
    compiled: Compiled | None

    def give_to(self, model: Any) -> None:
        """Restores the state in a model read from the file; ValueError if unlike it."""
        for place, layer in _placed(model):
            if place in self.layers:
                self.layers[place].give_to(layer)
        hidden = hidden_variables(model)
        shapes = [tuple(variable.shape) for variable in hidden]
        wanted = [value.shape for value in self.hidden]
        check_equal("shapes of variables in attributes", wanted, shapes)
        # Seeds are matched by position only.
        pairs = [*zip(hidden, self.hidden, strict=True)]
        for variable, value in [*pairs, *zip(_seeds(model), self.seeds, strict=False)]:
            assign(variable, value)
        if self.compiled is not None:  # a file has lambdas as bytecode alone
            self.compiled.compile(model)


def put_aside(model: Any, can_travel: Callable[[Any], bool]) -> Aside:
    """Returns what a file does not keep of a model, and can be sent with it."""
    layers = {}
    for place, layer in _placed(model):
        made = described_attributes(layer)  # of a user's class
        own = own_attributes(layer) if made else {}
        values = {k: v for k, v in own.items() if not holds_parts(v) and can_travel(v)}
        left = {name: made[name] for name in own.keys() - values.keys()}
        settings = settings_of(layer)
        layers[place] = _OfLayer(type(layer).__name__, settings, values, left)
    hidden = list(map(host_value, hidden_variables(model)))
    compiled = compiled_of(model) if is_compiled(model) else None
    compiled = compiled if can_travel(compiled) else None
    return Aside(layers, hidden, list(map(host_value, _seeds(model))), compiled)


def _placed(layer: Any, place: _Place = ()) -> Iterator[tuple[_Place, Any]]:
    yield place, layer
    for index, part in enumerate(parts_of(layer)):
        yield from _placed(part, (*place, index))


def _seeds(model: Any) -> list[Any]:
    return [variable for variable in variables_of(model) if is_seed(variable)]
