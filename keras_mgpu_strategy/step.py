"""Turns a replicated model into compiled steps.

A step runs the model over one chunk on one replica: a loop over micro-batches of
static shape, so that one round trip of the host serves many of them, nothing is
traced twice, and XLA, where it is on, compiles once.

Guarantees:

* Steps are compiled once per input signature, per-replica batch and head, and kept.
* Each replica's step is traced by `strategy.run` in that replica's own context, so
  that it reads its own copy of every variable; where copies differ, what saving stores.
* Replicas draw random numbers of their own.
* An output without a batch axis is an error when the step is compiled. What XLA
  cannot compile is one when the step first runs, which is when XLA looks at it.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import heads
from keras_mgpu_strategy.micro_batches import check_batch_axis, run_micro_batches
from keras_mgpu_strategy.models import Draws, PinnedValues, ReplicatedModel, drawing
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.signatures import spec_key
from keras_mgpu_strategy.step_calls import FIRST, CompiledStep, Position, ReplicaStep
from keras_mgpu_strategy.types import Nest


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
        self._steps: dict[tuple[Any, ...], CompiledStep] = {}
        self._lock = threading.Lock()
        self._pinned: PinnedValues | None = None

    @property
    def strategy(self) -> tf.distribute.Strategy:
        """The strategy whose replicas the steps run on."""
        return self._replicated.strategy

    def begin_run(self) -> None:
        """Reads anew what replicas must agree on; the model has been built."""
        with self._lock:
            if self._pinned is None:
                self._pinned = PinnedValues(self._replicated.all_variables())
        self._pinned.refresh()

    def replica_step(
        self,
        signature: Signature,
        replica: int,
        clock: StageClock,
        position: Position = FIRST,
    ) -> ReplicaStep:
        """The compiled step of one replica, for a chunk at a position.

        Args:
            signature: What to compile.
            replica: Index of the replica.
            clock: Notes the time it takes to compile.
            position: Where the rows are.

        Raises:
            ValueError: If an output of the model has no batch axis.
        """
        trace = functools.partial(self._trace, signature, replica)
        return self._step((replica, signature), trace, clock).at(position)

    def lockstep(
        self, signature: Signature, element_spec: Sequence[Any], clock: StageClock
    ) -> CompiledStep:
        """One compiled function that runs the step on all replicas together.

        Args:
            signature: What to compile.
            element_spec: Specs of a run, a row and the flat inputs of all replicas,
                which say no more of shapes than their ranks.
            clock: Notes the time it takes to compile.

        Raises:
            ValueError: If an output of the model has no batch axis.
        """
        trace = functools.partial(self._trace_lockstep, signature, element_spec)
        return self._step(("lockstep", signature), trace, clock)

    def _step(
        self,
        what: tuple[Any, Signature],
        trace: Callable[[], CompiledStep],
        clock: StageClock,
    ) -> CompiledStep:
        """What was traced before, for the same pinned variables, or is now."""
        which, signature = what
        version = self._pinned.version if self._pinned else 0
        key = (which, version, *signature.key)
        step = self._steps.get(key)
        if step is not None:
            return step
        with self._lock:
            if key not in self._steps:
                with clock.stage("compile"):
                    self._steps[key] = trace()
            return self._steps[key]

    def _replica_function(
        self, signature: Signature, found: list[Draws]
    ) -> Callable[..., Nest]:
        def run_chunk(run: tf.Tensor, row: tf.Tensor, *chunk: tf.Tensor) -> Nest:
            step = self._micro_batch_step(signature)
            draws = Draws(step, self._pinned.handles if self._pinned else {})
            found.append(draws)

            def before(first: tf.Tensor) -> list[Any]:
                return draws.begin(run, row + tf.cast(first, tf.int64))

            specs = signature.micro_batch_specs(signature.batch_size)
            return run_micro_batches(step, chunk, specs, before)

        return run_chunk

    def _trace(self, signature: Signature, wanted: int) -> CompiledStep:
        steps: list[Any] = []
        draws: list[Draws] = []
        run_chunk = self._replica_function(signature, draws)

        def trace_here() -> None:
            if _replica_here() == wanted:
                step = tf.function(run_chunk, autograph=False)
                specs = [*Position.specs(), *signature.chunk_specs()]
                steps.append(step.get_concrete_function(*specs))

        # Inside a tf.function, since strategy.run called eagerly logs a warning.
        everywhere = functools.partial(self.strategy.run, trace_here)
        tf.function(everywhere, autograph=False).get_concrete_function()
        return CompiledStep(steps[0], draws, has_xla=signature.jit_compile)

    def _trace_lockstep(
        self, signature: Signature, element_spec: Sequence[Any]
    ) -> CompiledStep:
        draws: list[Draws] = []
        run_chunk = self._replica_function(signature, draws)
        step = tf.function(
            lambda *arguments: self.strategy.run(run_chunk, args=arguments),
            input_signature=element_spec,
            autograph=False,
        )
        function = step.get_concrete_function()
        return CompiledStep(function, draws, has_xla=signature.jit_compile)

    def _as_declared(self, spec: Nest, flat: Sequence[tf.Tensor]) -> Nest:
        """The user's structure; the model's own where it has one input.

        Keras warns of a dict that holds the only input, or takes it for another one. A
        whole element is left as it is.
        """
        declared = self._replicated.input_spec
        is_x = declared is not None and self._replicated.feeding.whole is None
        has_one = is_x and len(tf.nest.flatten(declared)) == 1
        return tf.nest.pack_sequence_as(declared if has_one else spec, flat)

    def _micro_batch_step(self, signature: Signature) -> Any:
        replica = _replica_here()

        def forward(*flat: tf.Tensor) -> Nest:
            inputs = self._as_declared(signature.spec, flat)
            with drawing(replica):
                outputs = self._replicated.call(inputs)
            return tf.nest.map_structure(signature.head, outputs)

        def trace(num_rows: int) -> Any:
            function = tf.function(
                forward,
                autograph=self._replicated.autograph,
                jit_compile=signature.jit_compile or None,
            )
            specs = signature.micro_batch_specs(num_rows)
            return function.get_concrete_function(*specs)

        batch_size = signature.batch_size
        step = trace(batch_size)
        check_batch_axis(step.structured_outputs, batch_size)
        if not _declares_batch_axes(self._replicated):
            # A constant output can have as many rows as the batch by chance.
            check_batch_axis(trace(batch_size + 1).structured_outputs, batch_size + 1)
        return step


def _replica_here() -> int:
    """Index of the replica that code is being traced for."""
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))


def _declares_batch_axes(replicated: ReplicatedModel) -> bool:
    """Whether the outputs declare a batch axis, or no other batch can be tried."""
    inputs = filter(None, tf.nest.flatten(replicated.input_spec))
    if any(leaf.shape.rank and leaf.shape[0] is not None for leaf in inputs):
        return True
    if replicated.output_shapes is None:
        return False
    outputs = tf.nest.flatten(replicated.output_shapes)
    return all(shape.rank and shape[0] is None for shape in outputs)
