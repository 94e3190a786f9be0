"""What replicas share: one trace of a model, and one step where they share memory.

A trace reads variables through captured handles, and names no device but the host. So
with the handles of another replica's copies, it is a trace of that replica. Models for
which this is not certain are traced for each replica.
"""

import dataclasses
import functools
import itertools
from collections.abc import Container, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.compiled import CompiledStep
from keras_mgpu_strategy.compute.freezing import FrozenSteps
from keras_mgpu_strategy.compute.micro_batches import micro_batch_step
from keras_mgpu_strategy.compute.signatures import Signature, example_inputs
from keras_mgpu_strategy.compute.transfers import InPlace
from keras_mgpu_strategy.models import (
    Draws,
    ReplicatedModel,
    copies_of,
    nodes_of,
    only_reads,
)


class SharedTraces:
    """The traces of one model; not for several threads at once."""

    def __init__(self, replicated: ReplicatedModel):
        self._replicated = replicated
        self._num_replicas = replicated.strategy.num_replicas_in_sync
        self._shared: dict[Any, tuple[Any, list[Any]]] = {}
        self.frozen = FrozenSteps()

    def has(self, signature: Signature) -> bool:
        """Whether there is a trace for all replicas."""
        return _traced_for(signature).key in self._shared

    def step(
        self, signature: Signature, replica: int, handles: dict[int, Any]
    ) -> tuple[Any, Draws]:
        """A step on one micro-batch, until the next call, and what it draws from.

        Call it in the context of the replica, unless there is a trace for all. The
        `handles` are those of `PinnedValues`.

        Raises:
            CannotCompileError: A frozen step is asked for, and cannot be made.
        """
        key = _traced_for(signature).key
        if key in self._shared:
            step, captured = self._shared[key]
        else:
            step = micro_batch_step(self._replicated, signature, replica)
            captured = list(step.captured_inputs)
            if self._num_replicas > 1 and is_for_all(step, self._handles):
                self._shared[key] = step, captured
        if signature.step == "frozen":
            step.set_external_captures(captured)  # those of the variables it knows
            kept_by = signature.key if key in self._shared else None
            return self.frozen.step(kept_by, step, handles), Draws(step, [], {})
        alike = ((tensor, self._handles.get(id(tensor))) for tensor in captured)
        own = [copies[replica] if copies else tensor for tensor, copies in alike]
        step.set_external_captures(own)
        variables = [*itertools.chain(*self._copies), *step.variables]
        return step, Draws(step, variables, handles)

    @functools.cached_property
    def _copies(self) -> list[Sequence[Any]]:
        """The copies of each variable, once the model has been built."""
        return list(map(copies_of, self._replicated.all_variables()))

    @functools.cached_property
    def _handles(self) -> dict[int, list[Any]]:
        """By id of the handle of a copy, the handles of all copies."""
        found = [copies for copies in self._copies if len(copies) == self._num_replicas]
        handles = [[copy.handle for copy in copies] for copies in found]
        return {id(handle): own for own in handles for handle in own}


def _traced_for(signature: Signature) -> Signature:
    """What is traced: a frozen step is made of the trace of a plain one."""
    is_frozen = signature.step == "frozen"
    return dataclasses.replace(signature, step="plain") if is_frozen else signature


def is_for_all(step: Any, handles: Container[int]) -> bool:
    """Whether replicas differ only in captured handles, of which these are known."""
    unknown = [tensor for tensor in step.captured_inputs if id(tensor) not in handles]
    variables = {id(variable.handle) for variable in step.variables}
    if not all(map(_is_same_for_all, unknown)) or variables & set(map(id, unknown)):
        return False
    try:
        nodes = nodes_of(step.graph.as_graph_def())
    except ValueError:  # more than 2 GB of constants
        return False
    # Ops with seeds of their own would draw the same on all replicas.
    return all(_is_host(node.device) and "seed" not in node.attr for node in nodes)


def _is_same_for_all(tensor: Any) -> bool:
    """Whether it is on the host, as tables are, and not in a graph."""
    return not tf.is_symbolic_tensor(tensor) and _is_host(tensor.device)


def _is_host(device: str) -> bool:
    spec = tf.DeviceSpec.from_string(device)
    return not device or (spec.device_type, spec.device_index or 0) == ("CPU", 0)


def serves_all(step: CompiledStep, signature: Signature, traces: SharedTraces) -> bool:
    """Whether one replica's step, readied if so, may run for all that share its memory.

    TensorFlow optimizes a function for each device that it runs on. Parts of a CPU have
    no threads of their own, so a step that only reads can run on one of them for all.
    """
    if not (step.device and traces.has(signature)):
        return False
    graph = step.function.graph
    # Those that are frozen do, and their definition holds all weights.
    if signature.step != "frozen" and not only_reads(graph.as_graph_def()):
        return False
    stacks = [op for op in graph.get_operations() if op.type == "TensorListStack"]
    is_known = all(op.outputs[0].shape[1:].is_fully_defined() for op in stacks)
    if is_known and signature.step != "xla":
        # On no rows: replicas that begin at once would each optimize it.
        rows = tf.nest.flatten(example_inputs(signature.spec, 0))
        with tf.device(step.device):
            step.at(0, 0)(*InPlace(step.device).load(rows))
    return True
