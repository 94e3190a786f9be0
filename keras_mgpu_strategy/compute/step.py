"""Turns a replicated model into steps: compiled once for each signature, and kept.

A model is traced by `strategy.run` in the context of a replica, and once for all of
them if it can be. Each reads its own copy of every variable (if copies differ, what
saving stores) and draws numbers of its own. What XLA cannot compile is an error when
the step first runs.
"""

import dataclasses
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.compiled import (
    CannotCompileError,
    CompiledStep,
    ReplicaStep,
    run_by_xla,
)
from keras_mgpu_strategy.compute.micro_batches import run_micro_batches
from keras_mgpu_strategy.compute.shared_steps import serves_all
from keras_mgpu_strategy.compute.shared_traces import SharedTraces
from keras_mgpu_strategy.compute.signatures import Signature
from keras_mgpu_strategy.compute.transfers import (
    Copier,
    InPlace,
    has_own_memory,
    to_device,
    to_host,
)
from keras_mgpu_strategy.models import Draws, PinnedValues, ReplicatedModel
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.system.garbage import collect, collecting_rarely
from keras_mgpu_strategy.types import Nest


class StepCompiler:
    """Compiles the steps of one model and keeps them; clocks record the time."""

    def __init__(self, replicated: ReplicatedModel):
        self.strategy = replicated.strategy
        self._replicated = replicated
        self._devices = replicated.strategy.extended.worker_devices
        self._is_one_memory = not any(map(has_own_memory, self._devices))
        self._traces = SharedTraces(replicated)
        self._steps: dict[Any, Any] = {}
        self._lock = threading.Lock()
        self._pinned: PinnedValues | None = None

    def begin_run(self) -> None:
        """Rereads what replicas must agree on; the model has been built."""
        with self._lock:
            if self._pinned is None:
                self._pinned = PinnedValues(self._replicated.all_variables())
        self._pinned.refresh()
        self._traces.frozen.begin_run()

    def replica_step(
        self,
        signature: Signature,
        replica: int,
        clock: StageClock,
        run: int = 0,
        row: int = 0,
    ) -> tuple[str, ReplicaStep]:
        """Where a chunk of a replica runs, and its step, for a run and a first row."""
        trace = functools.partial(self._trace, replica)
        step = self._step(replica, signature, trace, clock)
        return step.device, step.at(run, row)

    def num_ops(self) -> int:
        """Ops of the largest step so far."""
        made = [*self._steps.values()]  # in which threads put others
        return max((getattr(step, "num_ops", 0) for step in made), default=0)

    def copier(
        self, signature: Signature, device: str, clock: StageClock
    ) -> Copier | InPlace:
        """What brings a chunk to a device."""
        if not has_own_memory(device):
            return InPlace(device)
        specs = signature.specs(None)

        def make() -> Copier:
            return Copier(device, specs)

        return self._kept_or_made(("copy", device, *specs), make, clock)

    def lockstep_copier(
        self, element_spec: Sequence[Any], clock: StageClock
    ) -> Callable[..., Sequence[Any]]:
        """What copies a chunk, by its flat specs, to each replica's device at once."""
        if self._is_one_memory:
            return lambda *leaves: leaves

        def copy(*leaves: tf.Tensor) -> list[tf.Tensor]:
            return to_device(self._devices[_replica_here()], leaves)

        def trace() -> Any:
            return self._on_all_replicas(copy, element_spec)

        return self._kept_or_made(("copy", *element_spec), trace, clock)

    def lockstep(
        self, signature: Signature, element_spec: Sequence[Any], clock: StageClock
    ) -> CompiledStep:
        """One step of all replicas; `element_spec` (run, row, inputs) has ranks."""

        def trace(wanted: Signature) -> CompiledStep:
            draws: list[Draws] = []

            def run_chunk(*arguments: tf.Tensor) -> Nest:
                step = self._replica_function(wanted, _replica_here(), draws)
                return step(*arguments)

            return CompiledStep(self._on_all_replicas(run_chunk, element_spec), draws)

        return self._step("lockstep", signature, trace, clock)

    def _step(
        self,
        where: int | str,
        signature: Signature,
        trace: Callable[[Signature], CompiledStep],
        clock: StageClock,
    ) -> CompiledStep:
        plain = dataclasses.replace(signature, step="plain")
        key = (self._version(signature), *signature.key)

        def instead() -> CompiledStep:
            return self._step(where, plain, trace, clock)

        def make() -> CompiledStep:
            try:
                step = trace(signature)
            except CannotCompileError:
                if not signature.may_fall_back:
                    raise
                return trace(plain)
            if self._is_one_memory and serves_all(step, signature, self._traces):
                replicas = range(len(self._devices))
                self._steps |= dict.fromkeys([(r, *key) for r in replicas], step)
            if signature.step == "xla":
                other = instead if signature.may_fall_back else None
                step.function = run_by_xla(step.function, other)
            return step

        return self._kept_or_made((where, *key), make, clock)

    def _version(self, signature: Signature) -> tuple[int, int]:
        """Of what a step reads or holds; frozen steps of other weights are dropped."""
        pinned = self._pinned.version if self._pinned else 0
        if signature.step != "frozen":
            return pinned, 0
        with self._lock:
            if self._traces.frozen.check():
                for key in [key for key in self._steps if "frozen" in key]:
                    del self._steps[key]
                collect()
        return pinned, self._traces.frozen.version

    def _kept_or_made(
        self, key: Any, make: Callable[[], Any], clock: StageClock
    ) -> Any:
        if (kept := self._steps.get(key)) is not None:
            return kept
        with self._lock:
            if key not in self._steps:
                with clock.stage("compile"), collecting_rarely():
                    self._steps[key] = make()
            return self._steps[key]

    def _replica_function(
        self, signature: Signature, replica: int, found: list[Draws]
    ) -> Callable[..., Nest]:
        def run_chunk(run: tf.Tensor, row: tf.Tensor, *chunk: tf.Tensor) -> Nest:
            handles = self._pinned.handles if self._pinned else {}
            step, draws = self._traces.step(signature, replica, handles)
            found.append(draws)

            def before(first: tf.Tensor) -> list[Any]:
                if not draws:  # otherwise the row number would be copied to a GPU
                    return []
                return draws.begin(run, row + tf.cast(first, tf.int64))

            specs = signature.specs(signature.batch_size)
            outputs = run_micro_batches(step, chunk, specs, before)
            return to_host(self._devices[replica], outputs)

        return run_chunk

    def _trace(self, replica: int, signature: Signature) -> CompiledStep:
        steps: list[Any] = []
        draws: list[Draws] = []
        run_chunk = self._replica_function(signature, replica, draws)

        def trace() -> None:
            step = tf.function(run_chunk, autograph=False)
            numbers = [tf.TensorSpec([], tf.int64)] * 2
            steps.append(step.get_concrete_function(*numbers, *signature.specs(None)))

        def trace_here() -> None:
            if _replica_here() == replica:
                trace()

        if self._traces.has(signature):
            trace()
        else:
            # strategy.run called eagerly logs a warning.
            everywhere = functools.partial(self.strategy.run, trace_here)
            tf.function(everywhere, autograph=False).get_concrete_function()
        return CompiledStep(steps[0], draws, self._devices[replica])

    def _on_all_replicas(self, function: Any, element_spec: Sequence[Any]) -> Any:
        def run(*leaves: Any) -> Any:
            return self.strategy.run(function, args=leaves)

        step = tf.function(run, element_spec, autograph=False)
        step.get_concrete_function()
        return step


def _replica_here() -> int:
    context = tf.distribute.get_replica_context()
    return int(tf.get_static_value(context.replica_id_in_sync_group))
