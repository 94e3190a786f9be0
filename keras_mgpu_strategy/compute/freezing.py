"""Steps whose weights are constants, so that TensorFlow can compute with them ahead.

What is frozen is the model on one micro-batch, not the loop around it, in which
TensorFlow would fuse less.
"""

from collections.abc import Callable, Iterable
from typing import Any

import tensorflow as tf

# There is no public function that freezes a graph: `convert_variables_to_constants_v2`,
# which many use, is as private as these parts of it, and prints two lines each time,
# since it inlines functions first. Tried with TensorFlow 2.21; the same in 2.18.
from tensorflow.python.framework import (
    convert_to_constants,  # pyright: ignore[reportMissingImports]
)

from keras_mgpu_strategy.compute.compiled import CannotCompileError
from keras_mgpu_strategy.models import (
    Snapshot,
    beyond_weights,
    is_seed,
    nodes_of,
    outside_scopes,
)
from keras_mgpu_strategy.system.messages import cause_of
from keras_mgpu_strategy.types import Nest

_MOST_BYTES = 2**31 - 2**24  # of a graph, which needs some for itself
_CONTROL_FLOW = ("Case", "If", "While")
# Part of the name of an op -> why a model with it is not frozen.
_EFFECTS = {
    "Assign": "it writes variables",
    "Random": "it draws random numbers",
    "LookupTable": "it looks words up in a table",
    "PyFunc": "it calls Python",
}


class FrozenSteps:
    """Frozen steps by key, until weights that they hold change."""

    def __init__(self) -> None:
        self._steps: dict[Any, FrozenStep] = {}
        self._snapshots: dict[Any, Snapshot] = {}
        self._is_checked = self._has_changed = False

    def begin_run(self) -> None:
        """Has weights compared before a frozen step is used again."""
        self._is_checked = False

    def check(self) -> bool:
        """Forgets all steps if weights have changed; looks once in a run."""
        if self._is_checked:
            return False
        self._is_checked = True
        renewed = [snapshot.renew() for snapshot in self._snapshots.values()]
        has_changed = any(renewed) or self._has_changed
        self._has_changed = False
        if has_changed:
            self._steps.clear()
        return has_changed

    def step(self, key: Any, traced: Any, replaced: Iterable[int]) -> "FrozenStep":
        """The frozen step of a traced one; kept if it has a key."""
        if reason := _obstacle(traced, replaced):
            raise CannotCompileError(
                f'The model cannot be frozen: {reason}. Pass compile="plain".'
            )
        if key in self._steps:
            return self._steps[key]
        handles = tuple(id(variable.handle) for variable in traced.variables)
        if handles not in self._snapshots:  # before the values are read
            self._snapshots[handles] = outside_scopes(Snapshot, traced.variables)
        elif outside_scopes(self._snapshots[handles].renew):
            self._has_changed = True  # within a run; the next drops all steps
        step = FrozenStep(traced)
        if key is not None:
            self._steps[key] = step
        return step


class FrozenStep:
    """A traced step with the values that its variables have now.

    Raises:
        CannotCompileError: TensorFlow cannot convert the graph.
    """

    def __init__(self, step: Any):
        self.structured_outputs = step.structured_outputs
        try:
            self._function: Any = outside_scopes(_frozen, step)
        except Exception as error:  # of any kind, for graphs that it does not expect
            raise CannotCompileError(
                f'The model cannot be frozen: {cause_of(error)}\nPass compile="plain".'
            ) from error

    def __call__(self, *flat: tf.Tensor) -> Nest:
        """Becomes part of the graph that is being made."""
        outputs = self._function(*flat)
        specs = tf.nest.flatten(self.structured_outputs)
        for output, spec in zip(outputs, specs, strict=True):
            output.set_shape(spec.shape)
        return tf.nest.pack_sequence_as(self.structured_outputs, outputs)


def _obstacle(step: Any, replaced: Iterable[int]) -> str | None:
    """Why a step cannot be frozen; None if it can."""
    captured = {id(tensor) for tensor in step.captured_inputs}
    if captured & {*replaced}:
        return "its moving statistics differ between replicas"
    if any(map(is_seed, step.variables)):
        return "it draws random numbers"
    if not all(v.shape.is_fully_defined() for v in step.variables):
        return "its variables may change their shapes"
    num_bytes = sum(v.shape.num_elements() * v.dtype.size for v in step.variables)
    if num_bytes > _MOST_BYTES:
        return f"its {num_bytes / 1e9:.1f} GB of weights exceed the 2 GB of a graph"
    for kind in beyond_weights(step.graph.as_graph_def()):
        known = [does for part, does in _EFFECTS.items() if part in kind]
        return known[0] if known else f"it does more than compute, by the op {kind}"
    handles = {id(variable.handle) for variable in step.variables}
    resources = {id(t) for t in step.captured_inputs if t.dtype == tf.resource}
    return "it reads resources by their handles" if resources - handles else None


def _frozen(step: Any) -> Callable[..., list[tf.Tensor]]:
    """What computes the flat outputs, in a graph, with constants for variables."""
    convert: Any = convert_to_constants
    graph, converted = convert._replace_variables_by_constants(_Values(step))
    if graph.library.function:  # which an import into a loop would not define
        return convert._construct_concrete_function(step, graph, converted)
    num_inputs = len(step.inputs) - len(step.captured_inputs)
    inputs = [leaf.name for leaf in step.inputs[:num_inputs]]
    outputs = [leaf.name for leaf in step.outputs]

    def imported(*flat: tf.Tensor) -> list[tf.Tensor]:  # several times as fast
        of = dict(zip(inputs, flat, strict=True))
        found: Any = tf.graph_util.import_graph_def(graph, of, outputs, name="frozen")
        return found

    return imported


class _Values(convert_to_constants._FunctionConverterDataInEager):
    """A graph, not inlined, and the values of what it captures."""

    def __init__(self, step: Any):
        self._func = step
        graph = step.graph.as_graph_def()
        for node in nodes_of(graph):
            # Each is a call then, which is faster here.
            if node.op.removeprefix("Stateless") in _CONTROL_FLOW:
                node.attr["_lower_using_switch_merge"].b = False
        convert_to_constants._ConverterData.__init__(self, graph)
        self._build_tensor_data()
