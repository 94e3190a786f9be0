"""One trace of a model for all replicas, where they differ only in what it captures.

A trace reads variables through captured handles, and names no device but the host. So
with the handles of another replica's copies, it is a trace of that replica. Models for
which this is not certain are traced for each replica.
"""

import dataclasses
import itertools
from collections.abc import Container, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.freezing import FrozenSteps
from keras_mgpu_strategy.compute.micro_batches import micro_batch_step
from keras_mgpu_strategy.compute.signatures import Signature
from keras_mgpu_strategy.models import Draws, ReplicatedModel, copies_of


class SharedTraces:
    """The traces of one model; not for several threads at once."""

    def __init__(self, replicated: ReplicatedModel):
        self._replicated = replicated
        self._num_replicas = replicated.strategy.num_replicas_in_sync
        self._shared: dict[Any, tuple[Any, list[Any]]] = {}
        self.frozen = FrozenSteps()
        self._copies: list[Sequence[Any]] = []

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
        if not self._copies:
            self._copies = list(map(copies_of, self._replicated.all_variables()))
        others = self._of_other_replicas()
        key = _traced_for(signature).key
        if key not in self._shared:
            step = micro_batch_step(self._replicated, signature, replica)
            captured = list(step.captured_inputs)
            if self._num_replicas > 1 and is_for_all(step, others):
                self._shared[key] = step, captured
        else:
            step, captured = self._shared[key]
        if signature.step == "frozen":
            step.set_external_captures(captured)  # those of the variables it knows
            key = signature.key if self.has(signature) else None
            return self.frozen.step(key, step, handles), Draws(step, [], {})
        own = [others.get(id(tensor)) for tensor in captured]
        pairs = zip(captured, own, strict=True)
        mine = [copies[replica] if copies else tensor for tensor, copies in pairs]
        step.set_external_captures(mine)
        variables = [*itertools.chain(*self._copies), *step.variables]
        return step, Draws(step, variables, handles)

    def _of_other_replicas(self) -> dict[int, list[Any]]:
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
        graph = step.graph.as_graph_def()
    except ValueError:  # more than 2 GB of constants
        return False
    functions = [node for body in graph.library.function for node in body.node_def]
    # Ops with seeds of their own would draw the same on all replicas.
    return all(
        _is_host(node.device) and "seed" not in node.attr
        for node in [*graph.node, *functions]
    )


def _is_same_for_all(tensor: Any) -> bool:
    """Whether it is on the host, as tables are, and not in a graph."""
    return not tf.is_symbolic_tensor(tensor) and _is_host(tensor.device)


def _is_host(device: str) -> bool:
    spec = tf.DeviceSpec.from_string(device)
    return not device or (spec.device_type, spec.device_index or 0) == ("CPU", 0)
