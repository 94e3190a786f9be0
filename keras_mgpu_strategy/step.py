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
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy import heads
from keras_mgpu_strategy.micro_batches import check_batch_axis, run_micro_batches
from keras_mgpu_strategy.models import ReplicatedModel
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.signatures import spec_key
from keras_mgpu_strategy.types import Nest

_XLA_REASON = re.compile("XLA|tf2xla|compile")

ReplicaStep: TypeAlias = Callable[..., Nest]
"""Takes the flat tensors of a chunk and returns the nest of its outputs."""


@dataclasses.dataclass(frozen=True)
class Signature:
    """Everything that a compiled step depends on.

    Args:
        spec: Nest of `tf.TensorSpec` of a chunk; the batch axis is None.
        batch_size: Per-replica batch: rows of one call of the model.
        head: What is done to the outputs on the device.
        jit_compile: Whether XLA compiles the call of the model.
    """

    spec: Nest
    batch_size: int
    head: heads.Head = heads.identity
    jit_compile: bool = False

    @property
    def key(self) -> tuple[Any, ...]:
        """Hashable form."""
        return (spec_key(self.spec), self.batch_size, self.head, self.jit_compile)

    def chunk_specs(self) -> list[tf.TensorSpec]:
        """Flat specs of a chunk: any number of rows."""
        return [_with_rows(leaf, None) for leaf in tf.nest.flatten(self.spec)]

    def micro_batch_specs(self, num_rows: int) -> list[tf.TensorSpec]:
        """Flat specs of one call of the model on `num_rows` rows."""
        return [_with_rows(leaf, num_rows) for leaf in tf.nest.flatten(self.spec)]


def _with_rows(leaf: tf.TensorSpec, num_rows: int | None) -> tf.TensorSpec:
    return tf.TensorSpec([num_rows, *leaf.shape[1:]], leaf.dtype)


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
        key = (replica, *signature.key)
        step = self._steps.get(key)
        if step is not None:
            return step
        with self._lock:
            if key not in self._steps:
                with clock.stage("compile"):
                    step = self._trace(signature, replica)
                self._steps[key] = _explained(step) if signature.jit_compile else step
            return self._steps[key]

    def lockstep(
        self, signature: Signature, element_spec: Sequence[Any], clock: StageClock
    ) -> Any:
        """One compiled function that runs the step on all replicas together.

        Args:
            signature: What to compile.
            element_spec: Flat specs of the distributed dataset that feeds it, which
                say no more of the shapes than their ranks.
            clock: Notes the time it takes to compile.

        Raises:
            ValueError: If an output of the model has no batch axis.
        """
        key = ("lockstep", *signature.key)
        with self._lock:
            if key not in self._steps:
                run_chunk = self._replica_function(signature)
                step = tf.function(
                    lambda *leaves: self.strategy.run(run_chunk, args=leaves),
                    input_signature=element_spec,
                    autograph=False,
                )
                with clock.stage("compile"):
                    step.get_concrete_function()
                self._steps[key] = _explained(step) if signature.jit_compile else step
            return self._steps[key]

    def _replica_function(self, signature: Signature) -> ReplicaStep:
        def run_chunk(*chunk: tf.Tensor) -> Nest:
            step = self._micro_batch_step(signature)
            specs = signature.micro_batch_specs(signature.batch_size)
            return run_micro_batches(step, chunk, specs)

        return run_chunk

    def _trace(self, signature: Signature, wanted: int) -> ReplicaStep:
        steps: list[ReplicaStep] = []
        run_chunk = self._replica_function(signature)

        def trace_here() -> None:
            context = tf.distribute.get_replica_context()
            replica = tf.get_static_value(context.replica_id_in_sync_group)
            if int(replica) == wanted:
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


def _explained(step: ReplicaStep) -> ReplicaStep:
    """Says in an error of XLA's compiler what the user can do."""

    def run(*chunk: Any) -> Nest:
        try:
            return step(*chunk)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            lines = str(error).splitlines()
            reason = next((line for line in lines if _XLA_REASON.search(line)), None)
            if reason is None:
                raise
            raise ValueError(
                f"XLA cannot compile the model: {reason[:400]}\nPass jit_compile=False."
            ) from error

    return run


def _declares_batch_axes(replicated: ReplicatedModel) -> bool:
    """Whether the outputs declare a batch axis, or no other batch can be tried."""
    if replicated.output_shapes is None:
        return False
    inputs = tf.nest.flatten(replicated.input_spec)
    if any(leaf.shape.rank and leaf.shape[0] is not None for leaf in inputs):
        return True
    outputs = tf.nest.flatten(replicated.output_shapes)
    return all(shape.rank and shape[0] is None for shape in outputs)
