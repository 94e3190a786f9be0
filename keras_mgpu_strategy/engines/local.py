"""A model on the devices of this process."""

import dataclasses
import functools
import math
import threading
import time
from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import models
from keras_mgpu_strategy.compute import gather, heads
from keras_mgpu_strategy.compute.signatures import StepKind, spec_key
from keras_mgpu_strategy.compute.step import StepCompiler
from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.devices.kinds import kind_of
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize, Plan
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.feed import noted, padded
from keras_mgpu_strategy.engines.mirrored import MirroredEngine
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.running import (
    Chunks,
    Engine,
    Ran,
    note_stages,
    run_fitting,
)
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.engines.track import Track, Turn
from keras_mgpu_strategy.types import HostBatch, InputBatch, Nest


class LocalChunks:
    """A `ChunkRunner` for the replicas of a strategy."""

    def __init__(self, context: Context, compiler: StepCompiler):
        self._context = context
        self._compiler = compiler

    def begin_run(self) -> None:
        """Makes the replicas agree on what they must share."""
        self._compiler.begin_run()

    def num_ops(self) -> int:
        """How many ops a step has."""
        return self._compiler.num_ops()

    def run(
        self, chunk: InputBatch, batch: BatchSize, replica: int, track: Track
    ) -> HostBatch:
        """Returns the results of a chunk."""
        began = time.perf_counter()
        with noted(chunk):
            chunk = self._context.ready(chunk, batch.size)
            seconds = time.perf_counter() - began
            attempt = functools.partial(self._attempt, replica, seconds)
            devices = self._context.devices[replica : replica + 1]
            how = (batch, track, self._context, devices)
            return gather.join(run_fitting([chunk], attempt, *how))

    def _attempt(
        self,
        replica: int,
        seconds: float,
        chunks: Chunks,
        plan: Plan,
        turn: Turn,
    ) -> Ran:
        context, clock, compiler = self._context, self._context.clock, self._compiler
        (chunk,) = chunks
        signature = context.signature(chunk.inputs, plan)
        numbers = (context.run, chunk.start)
        device, step = compiler.replica_step(signature, replica, clock, *numbers)
        copier: Any = compiler.copier(signature, device, clock)
        with clock.stage("input"):
            arrays = padded(chunk, signature.batch_size)
            loaded = copier.load(arrays)
        turn.copy()
        leaves = copier.copy(loaded)
        turn.launch()
        with tf.device(device):
            outputs = step(*leaves)
        rows, bytes_in = len(arrays[0]), sum(array.nbytes for array in arrays)
        clock.add_chunk(replica, chunk.num_rows, plan.size, bytes_in)
        results = gather.to_host(outputs, chunk.start, chunk.num_rows, rows)
        sizes = (context.weight(chunk.inputs, rows), results.num_bytes)
        note_stages(context, plan, replica, turn, *sizes, least_seconds=seconds)
        # Outputs exist twice while those of the micro-batches are joined.
        return [results], bytes_in + 2 * results.num_bytes


_ENGINES: dict[str, Callable[[Context, StepCompiler], Engine]] = {
    "mirrored": MirroredEngine,
    "threads": lambda context, compiler: ThreadsEngine(
        context, LocalChunks(context, compiler)
    ),
}


class LocalBackend:
    """A `Backend` of this process."""

    def __init__(self, replicated: models.ReplicatedModel, options: Options):
        self.model = replicated.model
        self.strategy = replicated.strategy
        self.devices: tuple[str, ...] = tuple(self.strategy.extended.worker_devices)
        self.input_spec = replicated.input_spec
        self.output_shapes = replicated.output_shapes
        self.feeding = replicated.feeding
        self.preprocessing = replicated.preprocessing
        self.is_remote = False
        self.called = models.output_names_of(replicated.each[0].model)
        self.hardware = list(map(kind_of, self.devices))
        self.compiler = StepCompiler(replicated)
        self._on_gpus = all(map(has_own_memory, self.devices))
        self.chunks = options.chunks(on_gpus=self._on_gpus)
        self._replicated = replicated
        self.options = options
        evaluation = dataclasses.replace(heads.evaluation, combine=options.combine)
        self._examiner = models.Examiner(replicated, evaluation)
        self._building = threading.Lock()
        self._tried: dict[Any, models.PaddedOutputs] = {}

    @property
    def floats(self) -> tf.DType:
        """The dtype of floats for a model that declares no inputs."""
        found = [models.float_dtype_of(each.model) for each in self._replicated.each]
        return max(found, key=lambda dtype: dtype.size)

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet."""
        with self._building:
            models.build(self._replicated, example)

    def engine(self, context: Context) -> Engine:
        """The engine of the options."""
        return _ENGINES[self.options.engine](self.fitted(context), self.compiler)

    def fitted(self, context: Context) -> Context:
        """Per-run state with what depends on devices, model and options filled in."""
        return context.fitted(
            self.choices,
            weight_bytes=self.weight_bytes,
            may_fall_back=self.options.step == "auto",
            makes_each=self._on_gpus,
            is_measured=self._on_gpus,
            **self.chunks,
        )

    @property
    def choices(self) -> tuple[StepKind, ...]:
        """How steps may be compiled; a run begins with the first if none is known."""
        if self.options.step != "auto":
            return (self.options.step,)
        return models.step_choices(self._replicated, self.devices)

    @functools.cached_property
    def weight_bytes(self) -> int:
        """Bytes of one copy of the variables."""
        variables = self._replicated.all_variables()
        sizes = [(tf.as_dtype(v.dtype).size, math.prod(v.shape)) for v in variables]
        return sum(size * number for size, number in sizes)

    def criteria(self, spec: Nest) -> models.Criteria:
        """What `evaluate` computes from the outputs for rows of a spec."""
        return self._examiner.criteria(spec)

    def try_padded(
        self,
        head: heads.Head,
        spec: Nest,
        padded: Nest,
        lengths: Sequence[int],
        *,
        side: str,
        unmasked: bool,
    ) -> models.PaddedOutputs:
        """Runs rows alone and padded; see `Backend.try_padded`."""
        how = {"side": side, "unmasked": unmasked}
        padding = models.padding_of(spec, padded, lengths[0], side)
        key = (head, spec_key(spec), padding, *how.values())
        if key not in self._tried:
            rows = (spec, padded, lengths)
            self._tried[key] = models.try_padded(self._replicated, head, *rows, **how)
        return self._tried[key]

    def describe(self) -> str:
        """Models, devices and options in one line, for a person."""
        return self.options.describe(*self.about(), self.devices)

    def about(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """Names of models, and dtypes of the floats that they compute with."""
        return self._replicated.names, self._replicated.float_dtypes

    def num_ops(self) -> int:
        """How many ops the largest step has so far."""
        return self.compiler.num_ops()

    def digest(self) -> str:
        """A short hash of what the model computes."""
        return models.digest(self._replicated)


def local_backend(
    members: Sequence[models.ReplicatedModel], names: Sequence[str], options: Options
) -> LocalBackend:
    """The backend of one model, or of what several models or views give together."""
    if options.combine is None:
        return LocalBackend(members[0], options)
    together = models.ensemble(members, names, options.views or ["identity"])
    return LocalBackend(together, options)
