"""A model's forward pass, compiled once for each signature, and kept.

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
from keras_mgpu_strategy.compute.sharing import SharedTraces, serves_all
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
        self._made: dict[Any, Any] = {}  # steps, and what copies their inputs
        self._lock = threading.Lock()

    @functools.cached_property
    def _pinned(self) -> PinnedValues:
        """Made when the first run begins, or by the first step of a process of Ray."""
        return PinnedValues(self._replicated.all_variables())

    def begin_run(self) -> None:
        """Rereads what replicas must agree on; the model has been built."""
        with self._lock:
            pinned = self._pinned
        pinned.refresh()
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
        made = [*self._made.values()]  # to which threads add others
        return max((getattr(step, "num_ops", 0) for step in made), default=0)

    def copier(
        self, signature: Signature, device: str, clock: StageClock
    ) -> Copier | InPlace:
        """What brings a chunk to a device."""
        if not has_own_memory(device):
            return InPlace(device)
        specs = signature.specs(None)
        make = functools.partial(Copier, device, specs)
        return self._kept_or_made(("copy", device, *specs), make, clock)

    def lockstep_copier(
        self, element_spec: Sequence[Any], clock: StageClock
    ) -> Callable[..., Sequence[Any]]:
        """What copies a chunk, by its flat specs, to each replica's device at once."""
        if self._is_one_memory:
            return lambda *leaves: leaves

        def copy(*leaves: tf.Tensor) -> list[tf.Tensor]:
            return to_device(self._devices[_replica_here()], leaves)

        make = functools.partial(self._on_all_replicas, copy, element_spec)
        return self._kept_or_made(("copy", *element_spec), make, clock)

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
        plain = functools.partial(dataclasses.replace, signature, step="plain")
        if signature.step == "frozen":
            self._drop_outdated()
        key = (self._pinned.version, *signature.key)

        def instead() -> CompiledStep:
            return self._step(where, plain(), trace, clock)

        def make() -> CompiledStep:
            try:
                step = trace(signature)
            except CannotCompileError:
                if not signature.may_fall_back:
                    raise
                return trace(plain())
            if self._is_one_memory and serves_all(step, signature, self._traces):
                replicas = range(len(self._devices))
                self._made |= dict.fromkeys([(r, *key) for r in replicas], step)
            if signature.step == "xla":
                other = instead if signature.may_fall_back else None
                step.function = run_by_xla(step.function, other)
            return step

        return self._kept_or_made((where, *key), make, clock)

    def _drop_outdated(self) -> None:
        """Drops the frozen steps if they hold weights that have changed."""
        with self._lock:
            if self._traces.frozen.check():
                for key in [key for key in self._made if "frozen" in key]:
                    del self._made[key]
                collect()

    def _kept_or_made(
        self, key: Any, make: Callable[[], Any], clock: StageClock
    ) -> Any:
        if (kept := self._made.get(key)) is not None:
            return kept
        with self._lock:
            if key not in self._made:
                with clock.stage("compile"), collecting_rarely():
                    self._made[key] = make()
            return self._made[key]

    def _replica_function(
        self, signature: Signature, replica: int, found: list[Draws]
    ) -> Callable[..., Nest]:
        def run_chunk(run: tf.Tensor, row: tf.Tensor, *chunk: tf.Tensor) -> Nest:
            step, draws = self._traces.step(signature, replica, self._pinned.handles)
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
        draws: list[Draws] = []
        run_chunk = self._replica_function(signature, replica, draws)
        function = tf.function(run_chunk, autograph=False)
        specs = [*[tf.TensorSpec([], tf.int64)] * 2, *signature.specs(None)]
        steps: list[Any] = []

        def trace_here() -> None:
            if _replica_here() == replica:
                steps.append(function.get_concrete_function(*specs))

        if self._traces.has(signature):
            steps.append(function.get_concrete_function(*specs))
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
