"""Graphs of models that do nothing but compute, traced without side effects.

Such a graph may read variables and tables; it writes, draws and prints nothing, calls
no Python, and has no unbounded loop. Tracing makes no variable; attributes that the
user's code sets while it is traced are restored, with the contents of containers in
them.
"""

import collections
import contextlib
from collections.abc import Iterator
from typing import Any, NoReturn

import tensorflow as tf

# There is no public way to ask whether an op is stateful. Tried with TensorFlow 2.18
# and 2.21.
from tensorflow.python.framework import (
    op_def_registry,  # pyright: ignore[reportMissingImports]
)

from keras_mgpu_strategy.models.attributes import (
    held_by,
    is_part,
    own_attributes,
    reachable,
)
from keras_mgpu_strategy.models.libraries import layers_of, library_of
from keras_mgpu_strategy.types import Nest

_READING = frozenset(
    {"Case", "If", "LookupTableFindV2", "LookupTableSizeV2", "ReadVariableOp"}
).union({"ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "While"})
_LOOPS = frozenset({"While", "StatelessWhile"})
# Kind of container -> what fills an empty one.
_MUTABLE: dict[type, Any] = {
    dict: dict.update,
    list: list.extend,
    set: set.update,
    collections.deque: collections.deque.extend,
}


class NotPureError(Exception):
    """A graph does more than compute its outputs."""


def pure_graph(model: Any, spec: Nest) -> Any:
    """Returns the concrete function of a model's `predict_step`; or NotPureError."""
    autograph = library_of(model).__name__ == "tf_keras"
    function = tf.function(lambda x: model.predict_step((x,)), autograph=autograph)
    with tf.variable_creator_scope(_refuse), _attributes_put_back(model):
        concrete = function.get_concrete_function(spec)
    if not _is_pure(concrete.graph):
        raise NotPureError
    return concrete


def _refuse(*_: Any, **settings: Any) -> NoReturn:
    raise NotPureError(f"variable {settings.get('name')!r} would be made")


def _is_pure(graph: Any) -> bool:
    definition = graph.as_graph_def()
    inner = {node.op for f in definition.library.function for node in f.node_def}
    if inner & _LOOPS or any(map(_is_endless, graph.get_operations())):
        return False
    return all(map(_only_reads, inner.union(node.op for node in definition.node)))


def _only_reads(op: str) -> bool:
    known = op_def_registry.get(op)
    return op in _READING or (known is not None and not known.is_stateful)


def _is_endless(op: Any) -> bool:
    """Whether an op is a loop without `maximum_iterations`, its second input."""
    return op.type in _LOOPS and tf.get_static_value(op.inputs[1]) == -1


@contextlib.contextmanager
def _attributes_put_back(model: Any) -> Iterator[None]:
    layers = [(layer, own_attributes(layer)) for layer in layers_of(model)]
    held = list(_mutable_in([value for _, own in layers for value in own.values()]))
    try:
        yield
    finally:
        for layer, before in layers:
            content = vars(layer)
            for name in own_attributes(layer).keys() - before.keys():
                del content[name]
            content |= {k: v for k, v in before.items() if content.get(k) is not v}
        for content, kind, before in held:
            if _ids(content) != _ids(before):
                kind.clear(content)
                _MUTABLE[kind](content, before)


def _mutable_in(values: list[Any]) -> Iterator[tuple[Any, Any, Any]]:
    """Yields each mutable content in some values, with its kind and a copy of it."""
    for value in reachable(values):
        content = value
        if not isinstance(value, tuple(_MUTABLE)):
            inner = [] if is_part(value) else [held for _, held in held_by(value)]
            content = getattr(value, "__dict__", None)
            if not isinstance(content, dict) or _ids(content) != _ids(inner):
                continue  # not an object that holds just these values
        for kind in _MUTABLE:
            if issubclass(type(content), kind):  # not a proxy of one
                yield content, kind, kind(content)


def _ids(content: Any) -> list[int]:
    """The ids of what a container holds; for a dict, of its values."""
    return list(map(id, content.values() if isinstance(content, dict) else content))
