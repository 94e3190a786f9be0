"""What a traced graph does besides computing its outputs."""

from typing import Any

# There is no public way to ask whether an op is stateful. Tried with TensorFlow 2.18
# and 2.21.
from tensorflow.python.framework import (
    op_def_registry,  # pyright: ignore[reportMissingImports]
)

_READING = frozenset(
    {"Case", "If", "LookupTableFindV2", "LookupTableSizeV2", "ReadVariableOp"}
).union({"ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "While"})


def only_reads(definition: Any) -> bool:
    """Whether a `GraphDef` writes, draws and prints nothing, and calls no Python."""
    return not any(map(_is_stateful, kinds_of(definition) - _READING))


def beyond_weights(definition: Any) -> list[str]:
    """The ops of a `GraphDef` that do more than compute with variables."""
    known = {kind for kind in _READING if "Lookup" not in kind}
    return sorted(filter(_is_stateful, kinds_of(definition) - known))


def kinds_of(definition: Any) -> set[str]:
    """The ops of a `GraphDef`, those in its functions included."""
    return {node.op for node in nodes_of(definition)}


def nodes_of(definition: Any) -> list[Any]:
    """The nodes of a `GraphDef`, those in its functions included."""
    functions = definition.library.function
    return [*definition.node, *(node for body in functions for node in body.node_def)]


def _is_stateful(kind: str) -> bool:
    op = op_def_registry.get(kind)
    return op is None or op.is_stateful
