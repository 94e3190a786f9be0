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
    inner = {node.op for f in definition.library.function for node in f.node_def}
    kinds = inner.union(node.op for node in definition.node) - _READING
    known = list(map(op_def_registry.get, kinds))
    return all(op is not None and not op.is_stateful for op in known)
