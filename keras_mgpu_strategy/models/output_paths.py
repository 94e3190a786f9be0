"""Paths to the outputs of layers: `pool`, or `encoder/pool` into a nested model.

Only models that run the graph of layers they were built from have such places. The
names `_keras_history` and `_inbound_nodes` are not public; Keras has no other way to
ask which layer was called where. Tried with Keras 3.5 and 3.15, tf_keras 2.18 and 2.21.
"""

import difflib
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.libraries import declared, library_of, symbols_of
from keras_mgpu_strategy.models.overrides import is_overridden, is_users

_MOST_NAMES = 20


def layer_of(call: Any) -> Any:
    """Returns the layer or operation that a node of a graph calls."""
    return call.operation if hasattr(call, "operation") else call.layer


def needed_by(calls: Iterable[Any]) -> dict[int, Any]:
    """Returns id -> node of all calls that these depend on, themselves included."""
    found: dict[int, Any] = {}
    waiting = list(calls)
    while waiting:
        call = waiting.pop()
        if id(call) not in found:
            found[id(call)] = call
            waiting += call.parent_nodes
    return found


def calls_of(model: Any) -> dict[str, list[Any]]:
    """Returns name -> calls of each layer between a graph's inputs and outputs."""
    tensors = [*symbols_of(model, "inputs"), *symbols_of(model, "outputs")]
    histories = [tensor._keras_history for tensor in tensors]
    ends = [layer._inbound_nodes[index] for layer, index, _ in histories]
    calls: dict[str, list[Any]] = {}
    for call in reversed(needed_by(ends).values()):
        calls.setdefault(layer_of(call).name, []).append(call)
    return calls


def is_graph(layer: Any) -> bool:
    """Whether a layer is a model that runs the graph it was built from."""
    if not hasattr(layer, "layers") or not symbols_of(layer, "outputs"):
        return False
    # KerasHub's own `__call__` only looks for strings.
    return not (is_overridden(layer, "call") or is_users(layer, "__call__"))


def chains_of(model: Any, paths: Sequence[str]) -> dict[str, tuple[str, ...]]:
    """Returns path -> names of the layers on the way; ValueError if there is none."""
    _check_is_graph(model)
    chains = dict(_chains(model))
    for path in paths:
        if path not in chains:
            raise _unknown(model, path, chains)
        _check_is_used_once(model, path, chains[path])
    return {path: chains[path] for path in paths}


def _chains(
    model: Any, before: tuple[str, ...] = ()
) -> Iterator[tuple[str, tuple[str, ...]]]:
    for name, calls in calls_of(model).items():
        chain = (*before, name)
        yield "/".join(chain), chain  # tf_keras allows "/" in names
        if is_graph(layer_of(calls[0])):
            yield from _chains(layer_of(calls[0]), chain)


def unknown(path: str, names: Iterable[str], owner: str) -> ValueError:
    """Returns the error for a name that is none of these."""
    known = list(names)
    near = difflib.get_close_matches(path, known, n=5)
    shown = near or known[:_MOST_NAMES]
    rest = "" if near or shown == known else f" and {len(known) - len(shown)} more"
    return ValueError(
        f"outputs={path!r}: {owner} has no such output. "
        f"{'The nearest names are' if near else 'Expected one of'} {shown}{rest}."
    )


def _unknown(model: Any, path: str, chains: dict[str, tuple[str, ...]]) -> ValueError:
    """The error for a path that leads nowhere, or into a model that is no graph."""
    parents = [path[:at] for at, letter in enumerate(path) if letter == "/"]
    for parent in filter(chains.get, reversed(parents)):
        layer = model
        for name in chains[parent]:
            layer = layer_of(calls_of(layer)[name][0])
        if hasattr(layer, "layers") and not is_graph(layer):
            return ValueError(
                f"outputs={path!r}: {parent!r} ({type(layer).__name__}) runs its own "
                f"`call`, so the results of its layers have no names. {_RETURN_THEM}"
            )
    return unknown(path, chains, _label(model))


_RETURN_THEM = (
    "Return what you need from `call`, in a dict for instance, and leave out "
    "`outputs`; or build the model from `keras.Input` and layers."
)


def _check_is_used_once(model: Any, path: str, chain: tuple[str, ...]) -> None:
    for name in chain:
        calls = calls_of(model)[name]
        if len(calls) > 1:
            raise ValueError(
                f"outputs={path!r}: the layer {name!r} is used at {len(calls)} places "
                f"in {_label(model)}, expected one. Name a layer after the place you "
                "mean, or add one there (`layers.Identity(name=...)`), or pass "
                "`keras.Model(model.inputs, tensor)`."
            )
        model = layer_of(calls[0])


def _label(model: Any) -> str:
    return f"model {model.name!r} ({type(model).__name__})"


def _check_is_graph(model: Any) -> None:
    label = f"outputs= goes with graphs of layers, and {_label(model)}"
    if is_overridden(model, "predict_step"):
        raise ValueError(
            f"{label} has its own `predict_step`, which would not run. Leave out "
            "`outputs` and return what you need from it, or pass "
            "`keras.Model(model.input, model.output)`, which has none."
        )
    if is_graph(model):
        return
    if isinstance(model, library_of(model).Sequential):
        raise ValueError(
            f"{label} is not built yet. Begin it with `keras.Input(shape)`, or call "
            "`model.build(input_shape)` first."
        )
    raise ValueError(f"{label} runs its own `call`. {_RETURN_THEM}")


def output_of(call: Any) -> Any:
    """Returns what a call gives, in the structure that is known of it."""
    flat, layer = tf.nest.flatten(call.outputs), layer_of(call)
    if is_graph(layer):
        return tf.nest.pack_sequence_as(declared(layer, "outputs"), flat)
    return flat[0] if len(flat) == 1 else call.outputs
