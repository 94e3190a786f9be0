"""Steps whose weights are constants, so that TensorFlow can compute with them ahead.

One frozen step serves all replicas: their copies are equal, or the model is not frozen.
"""

import functools
from typing import Any

import tensorflow as tf

# Frozen graphs have no public function. This one was tried with TensorFlow 2.18 and
# 2.21.
from tensorflow.python.framework import (
    op_def_registry,  # pyright: ignore[reportMissingImports]
)
from tensorflow.python.framework.convert_to_constants import (
    convert_variables_to_constants_v2,  # pyright: ignore[reportMissingImports]
)

from keras_mgpu_strategy.compute.compiled import CannotCompileError
from keras_mgpu_strategy.models import outside_scopes
from keras_mgpu_strategy.types import Nest

_READING = frozenset({"Case", "If", "PartitionedCall", "ReadVariableOp"}).union(
    {"ResourceGather", "ResourceGatherNd", "StatefulPartitionedCall", "While"}
)


class FrozenStep:
    """A traced step with the values that its variables have now.

    Raises:
        CannotCompileError: It does more than compute with variables.
    """

    def __init__(self, step: Any):
        _check(step)
        self.structured_outputs = step.structured_outputs
        # Of tables made before, which the conversion would warn of.
        step.graph.clear_collection("table_initializer")
        # Loops and branches stay functions, which TensorFlow then inlines itself.
        convert = functools.partial(
            convert_variables_to_constants_v2, step, lower_control_flow=False
        )
        self._function: Any = outside_scopes(convert)

    def __call__(self, *flat: tf.Tensor) -> Nest:
        """Runs it in a graph."""
        outputs = self._function(*flat)
        specs = tf.nest.flatten(self.structured_outputs)
        for output, spec in zip(outputs, specs, strict=True):
            output.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(self.structured_outputs, outputs)


def _check(step: Any) -> None:
    graph = step.graph.as_graph_def()
    functions = [node for body in graph.library.function for node in body.node_def]
    for kind in sorted({node.op for node in [*graph.node, *functions]} - _READING):
        op = op_def_registry.get(kind)
        if op is None or op.is_stateful:
            raise CannotCompileError(
                f"The model cannot be frozen: it runs the op {kind}, which does more "
                'than compute with weights. Pass compile="plain".'
            )
