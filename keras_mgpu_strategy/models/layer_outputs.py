"""Outputs of layers as a model's results, chosen by name: `outputs=`.

What the outputs need becomes a model of its own; the user's model and layers stay as
they are. A nested model that is also needed as a whole is not cut but watched, so that
it runs once.
"""

import copy
import dataclasses
import functools
import threading
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, TypeAlias

from keras_mgpu_strategy.models.libraries import declared, library_of
from keras_mgpu_strategy.models.output_paths import (
    calls_of,
    chains_of,
    is_graph,
    layer_of,
    needed_by,
    output_of,
)
from keras_mgpu_strategy.models.variables import outside_scopes
from keras_mgpu_strategy.types import Nest

_Chains: TypeAlias = Mapping[str, tuple[Any, ...]]
"""Path as the user gave it -> names, or indices, of layers that lead to its output."""


@dataclasses.dataclass(frozen=True)
class ModelPart:
    """What outputs need of a model, which may be rebuilt before it is run.

    It returns a dict by path, or the output itself if there is one. `watched` are the
    places (chains of indices) of those inside models that it needs as a whole.
    """

    paths: tuple[str, ...]
    model: Any
    watched: _Chains

    def step_of(self, model: Any) -> Callable[[Nest], Nest]:
        """Returns the `predict_step` of this model or of a copy, to be traced."""
        paths, notes = self.paths, threading.local()  # several threads may trace
        whole = _watching(model, self.watched, notes) if self.watched else model

        def step(data: Nest) -> Nest:
            notes.found = {}
            results = whole.predict_step(data)
            if not notes.found:
                return results
            results |= notes.found
            return {path: results[path] for path in paths}

        return step


def part_of(model: Any, paths: Sequence[str] | None) -> ModelPart:
    """Returns the part of a model that the outputs at these paths need; None for all.

    Raises ValueError if there is no such output, if it is at several places, and for
    models that do not run a graph of layers.
    """
    if paths is None:
        return ModelPart((), model, {})
    chains = chains_of(model, paths)
    tensors, watched = _cut(model, chains)
    several = {path: tensors[path] for path in paths if path in tensors}
    part = _model(model, several if len(paths) > 1 else tensors[paths[0]])
    places = {path: _place(part, chain) for path, chain in watched.items()}
    return ModelPart(tuple(paths), part, places)


def _model(model: Any, outputs: Nest, kind: type | None = None) -> Any:
    """A model of other outputs of the same graph."""
    make: Any = kind or library_of(model).Model
    with warnings.catch_warnings():  # said before, of the user's own model
        warnings.simplefilter("ignore", UserWarning)
        return make(declared(model, "inputs"), outputs, name=model.name)


def _cut(model: Any, chains: _Chains) -> tuple[dict[str, Nest], dict[str, Any]]:
    """Path -> symbolic output, and path -> chain of what must be watched instead."""
    calls = calls_of(model)
    whole, inside = _by_first(chains)
    results = {path: calls[name][0] for path, name in whole.items()}
    entered = {name: calls[name][0] for name in inside}
    before = [parent for call in entered.values() for parent in call.parent_nodes]
    needed = needed_by([*results.values(), *before])
    tensors = {path: output_of(call) for path, call in results.items()}
    watched = {}
    for name, call in entered.items():
        deeper = inside[name]
        if id(call) not in needed:
            found, deeper = _cut(layer_of(call), deeper)
            tensors |= _called_like(call, _model(layer_of(call), found))
        watched |= {path: (name, *chain) for path, chain in deeper.items()}
    return tensors, watched


def _called_like(call: Any, model: Any) -> Nest:
    """The symbolic results of another model in the place of a call."""
    args, kwargs = _arguments(call)
    # The layers may belong to another strategy than the one in use here.
    results = outside_scopes(functools.partial(model, *args, **kwargs))
    # The user's layers would refer to the model for as long as they live.
    new = model._inbound_nodes[-1]
    for parent in new.parent_nodes:
        layer_of(parent)._outbound_nodes.remove(new)
    return results


def forget_rest(model: Any) -> None:
    """Releases what a part was cut from, if nobody else holds its layers."""
    for calls in calls_of(model).values():
        layer = layer_of(calls[0])
        layer._outbound_nodes.clear()  # Keras 3.15 and tf_keras 2.21 never read them
        if is_graph(layer):
            forget_rest(layer)


def _by_first(chains: _Chains) -> tuple[dict[str, Any], dict[Any, _Chains]]:
    """Chains of one link; the others without their first link, by that."""
    ends = {path: chain[0] for path, chain in chains.items() if len(chain) == 1}
    longer: dict[Any, Any] = {}
    for path, (first, *rest) in chains.items():
        if rest:
            longer.setdefault(first, {})[path] = tuple(rest)
    return ends, longer


def _arguments(call: Any) -> tuple[Any, Any]:
    if hasattr(call, "arguments"):  # Keras 3
        return call.arguments.args, call.arguments.kwargs
    return call.call_args, call.call_kwargs


def _place(model: Any, chain: Sequence[str]) -> tuple[int, ...]:
    """Indices of calls, which copies share: Keras 3.5 names their operations anew."""
    place = []
    for name in chain:
        calls = calls_of(model)
        place.append([*calls].index(name))
        model = layer_of(calls[name][0])
    return tuple(place)


def _watching(model: Any, places: _Chains, notes: threading.local) -> Any:
    """A model that computes the same, and notes outputs of layers at these places."""
    base: Any = type(_model(model, declared(model, "outputs")))

    class Watching(base):
        """Hides the outputs that it notes from its caller."""

        def __call__(self, *args: Any, **kwargs: Any) -> Nest:
            outputs = super().__call__(*args, **kwargs)
            notes.found.update(outputs["inside"])
            return outputs["own"]

    calls = [call for call, *_ in calls_of(model).values()]
    whole, inside = _by_first(places)
    outputs = {
        "own": declared(model, "outputs"),
        "inside": {path: output_of(calls[index]) for path, index in whole.items()},
    }
    new = _model(model, outputs, Watching)
    nested = {index: layer_of(calls[index]) for index in inside}
    swapped = {id(x): _watching(x, inside[i], notes) for i, x in nested.items()}
    # Copies: nodes belong to the layers. The name is not public, and the same in Keras
    # 3.5 and 3.15, tf_keras 2.18 and 2.21.
    for nodes in new._nodes_by_depth.values():
        nodes[:] = [_swapped(node, swapped) for node in nodes]
    return new


def _swapped(call: Any, models: dict[int, Any]) -> Any:
    other = models.get(id(layer_of(call)))
    if other is None:
        return call
    call = copy.copy(call)
    setattr(call, "operation" if hasattr(call, "operation") else "layer", other)
    return call
