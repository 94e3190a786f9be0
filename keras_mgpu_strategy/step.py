"""Turns a replicated model into compiled steps.

A step runs the model over one chunk on one replica: a loop over micro-batches of
static shape, so that one round trip of the host serves many of them, nothing is
traced twice, and XLA, where it is on, compiles once.

Guarantees:

* Steps are compiled once per input signature, per-replica batch and head, and kept.
* Each replica's step is traced by `strategy.run` in that replica's own context, so
  that it reads that replica's own copy of every variable.
* An output without a batch axis is an error when the step is compiled. What XLA
  cannot compile is one when the step first runs, which is when XLA looks at it.
"""

import dataclasses
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.micro_batches import check_batch_axis, run_micro_batches
from keras_mgpu_strategy.models import ReplicatedModel
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.signatures import Signature
from keras_mgpu_strategy.transfers import has_own_memory, to_device, to_host
from keras_mgpu_strategy.types import Nest
from keras_mgpu_strategy.xla_errors import run_by_xla

ReplicaStep: TypeAlias = Callable[..., Nest]
"""Takes the flat tensors of a chunk on its device; returns its outputs on the host."""

Copier: TypeAlias = Callable[..., Sequence[Any]]
"""Takes the flat tensors of a chunk on the host; returns them on its device."""


class StepCompiler:
    """Compiles the steps of one replicated model and keeps them.

    Args:
        replicated: The model.
    """

    def __init__(self, replicated: ReplicatedModel):
        self._replicated = replicated
        self._steps: dict[tuple[Any, ...], Any] = {}
        self._lock = threading.Lock()

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy whose replicas the steps run on."""
        return self._replicated.strategy

    def replica_step(
        self, signature: Signature, replica: int, clock: StageClock
    ) -> ReplicaStep:
        """The compiled step of one replica.

        Args:
            signature: What to compile.
            replica: Index of the replica.
            clock: Notes the time it takes to compile.

        Raises:
            ValueError: If an output of the model has no batch axis.
        """

        def trace(wanted: Signature) -> ReplicaStep:
            return self._trace(wanted, replica)

        return self._step(replica, signature, trace, clock)

    def copier(self, signature: Signature, replica: int, clock: StageClock) -> Copier:
        """What copies a chunk to the device of one replica.

        Args:
            signature: What it is copied for.
            replica: Index of the replica.
            clock: Notes the time it takes to compile.
        """
        device = self.strategy.extended.worker_devices[replica]
        if not has_own_memory(device):
            return _as_it_is
        specs = signature.chunk_specs()

        def trace() -> Copier:
            copy = tf.function(lambda *leaves: to_device(device, leaves))
            return copy.get_concrete_function(*specs)

        return self._kept(("copy", replica, *specs), trace, clock)

    def lockstep_copier(self, element_spec: Sequence[Any], clock: StageClock) -> Copier:
        """What copies a chunk to each replica's device, all of them together.

        Args:
            element_spec: As for `lockstep`.
            clock: Notes the time it takes to compile.
        """
        if not any(map(has_own_memory, self.strategy.extended.worker_devices)):
            return _as_it_is

        def copy(*leaves: tf.Tensor) -> list[tf.Tensor]:
            return to_device(self._replica_device(), leaves)

        def trace() -> Copier:
            return self._traced_lockstep(copy, element_spec)

        return self._kept(("copy", *element_spec), trace, clock)

    def lockstep(
        self, signature: Signature, element_spec: Sequence[Any], clock: StageClock
    ) -> ReplicaStep:
        """One compiled function that runs the step on all replicas together.

        Args:
            signature: What to compile.
            element_spec: Flat specs of the distributed dataset that feeds it, which
                say no more of the shapes than their ranks.
            clock: Notes the time it takes to compile.

        Raises:
            ValueError: If an output of the model has no batch axis.
        """

        def trace(wanted: Signature) -> ReplicaStep:
            return self._traced_lockstep(self._replica_function(wanted), element_spec)

        return self._step("lockstep", signature, trace, clock)

    def _step(
        self,
        where: int | str,
        signature: Signature,
        trace: Callable[[Signature], ReplicaStep],
        clock: StageClock,
    ) -> ReplicaStep:
        plain = dataclasses.replace(signature, jit_compile=False)

        def make() -> ReplicaStep:
            step = trace(signature)
            if not signature.jit_compile:
                return step
            falls_back = signature.may_fall_back
            instead = lambda: self._step(where, plain, trace, clock)  # noqa: E731
            return run_by_xla(step, instead if falls_back else None)

        return self._kept((where, *signature.key), make, clock)

    def _kept(self, key: Any, trace: Callable[[], Any], clock: StageClock) -> Any:
        """What was compiled under a key, or is now."""
        kept = self._steps.get(key)
        if kept is not None:
            return kept
        with self._lock:
            if key not in self._steps:
                with clock.stage("compile"):
                    self._steps[key] = trace()
            return self._steps[key]

    def _traced_lockstep(self, function: Any, element_spec: Sequence[Any]) -> Any:
        step = tf.function(
            lambda *leaves: self.strategy.run(function, args=leaves),
            input_signature=element_spec,
            autograph=False,
        )
        step.get_concrete_function()
        return step

    def _replica_device(self) -> str:
        """The device of the replica whose context this is called in."""
        context = tf.distribute.get_replica_context()
        replica = tf.get_static_value(context.replica_id_in_sync_group)
        return self.strategy.extended.worker_devices[int(replica)]

    def _replica_function(self, signature: Signature) -> ReplicaStep:
        def run_chunk(*chunk: tf.Tensor) -> Nest:
            step = self._micro_batch_step(signature)
            specs = signature.micro_batch_specs(signature.batch_size)
            outputs = run_micro_batches(step, chunk, specs)
            return to_host(self._replica_device(), outputs)

        return run_chunk

    def _trace(self, signature: Signature, wanted: int) -> ReplicaStep:
        steps: list[ReplicaStep] = []
        run_chunk = self._replica_function(signature)
        devices = self.strategy.extended.worker_devices

        def trace_here() -> None:
            if self._replica_device() == devices[wanted]:
                step = tf.function(run_chunk, autograph=False)
                steps.append(step.get_concrete_function(*signature.chunk_specs()))

        # Inside a tf.function, since strategy.run called eagerly logs a warning.
        tf.function(
            lambda: self.strategy.run(trace_here), autograph=False
        ).get_concrete_function()
        return steps[0]

    def _as_declared(self, spec: Nest, flat: Sequence[tf.Tensor]) -> Nest:
        """The user's structure; the model's own where it has one input.

        Keras warns of a dict that holds the only input, or takes it for another one.
        """
        declared = self._replicated.input_spec
        has_one = declared is not None and len(tf.nest.flatten(declared)) == 1
        return tf.nest.pack_sequence_as(declared if has_one else spec, flat)

    def _micro_batch_step(self, signature: Signature) -> Any:
        def forward(*flat: tf.Tensor) -> Nest:
            outputs = self._replicated.call(self._as_declared(signature.spec, flat))
            return tf.nest.map_structure(signature.head, outputs)

        def trace(num_rows: int) -> Any:
            function = tf.function(
                forward, autograph=False, jit_compile=signature.jit_compile or None
            )
            return function.get_concrete_function(
                *signature.micro_batch_specs(num_rows)
            )

        batch_size = signature.batch_size
        step = trace(batch_size)
        check_batch_axis(step.structured_outputs, batch_size)
        if not _declares_batch_axes(self._replicated):
            # A constant output can have as many rows as the batch by chance.
            check_batch_axis(trace(batch_size + 1).structured_outputs, batch_size + 1)
        return step


def _as_it_is(*leaves: Any) -> tuple[Any, ...]:
    return leaves


def _declares_batch_axes(replicated: ReplicatedModel) -> bool:
    """Whether the outputs declare a batch axis, or no other batch can be tried."""
    if replicated.output_shapes is None:
        return False
    inputs = tf.nest.flatten(replicated.input_spec)
    if any(leaf.shape.rank and leaf.shape[0] is not None for leaf in inputs):
        return True
    outputs = tf.nest.flatten(replicated.output_shapes)
    return all(shape.rank and shape[0] is None for shape in outputs)
