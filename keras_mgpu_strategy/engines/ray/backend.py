"""A model in several processes, on this machine or on a cluster."""

import dataclasses
import threading
from collections.abc import Sequence
from typing import NoReturn

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.interface import StoppedWithin
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray.actors import Actors
from keras_mgpu_strategy.engines.ray.cluster import connect, wait_for_room
from keras_mgpu_strategy.engines.ray.model_file import ModelFile
from keras_mgpu_strategy.engines.ray.pickling import Packed, pack
from keras_mgpu_strategy.engines.ray.plan import RayOptions, make_plan
from keras_mgpu_strategy.engines.ray.worker import Done
from keras_mgpu_strategy.engines.running import Engine
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.models import Criteria, PaddedOutputs
from keras_mgpu_strategy.sources.token_batches import ONE_LENGTH
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.system.messages import calling_line, warn
from keras_mgpu_strategy.types import NO_MARKS, HostBatch, InputBatch, Nest, RowMarks


class RemoteChunks:
    """A `ChunkRunner` for the processes of Ray's actors."""

    def __init__(self, actors: Actors, context: Context):
        self._actors = actors
        self._context = context
        self._lock = threading.Lock()
        self._line = calling_line()

    def begin_run(self) -> None:
        """Does nothing: each process has one replica."""

    def num_ops(self) -> int:
        """How many ops a step has in the first process."""
        return int(self._actors.call(0, "ask", "num_ops", what="Counting ops"))

    def run(
        self, chunk: InputBatch, batch: BatchSize, replica: int, track: Track
    ) -> HostBatch:
        """Returns the results of a chunk."""
        del track  # the process has its own
        context, plan = self._context, batch.plan
        what = f"Running rows {chunk.start} to {chunk.start + chunk.num_rows}"
        how = (plan.size, plan.step, context.is_fixed, context.head, context.run)
        if context.tokens != ONE_LENGTH:
            how = (*how, context.tokens, context.spec)
        done: Done = self._actors.call(
            replica, "run", chunk, *how, what=what, line=self._line
        )
        self._record(batch, replica, chunk, done)
        with context.clock.stage("copy_out"):
            # Copies, since views would keep the whole result in Ray's store.
            outputs = tf.nest.map_structure(np.array, done.batch.outputs)
            missing = done.batch.marks.missing
            marks = NO_MARKS if missing is None else RowMarks(missing=np.array(missing))
        results = HostBatch(done.batch.start, outputs, marks)
        if done.stopped_by is not None:
            where = f"In the process of replica {replica}"
            raise StoppedWithin(results, done.stopped_by.error_from(where))
        return results

    def _record(
        self, batch: BatchSize, replica: int, chunk: InputBatch, done: Done
    ) -> None:
        context, num_rows = self._context, done.batch.num_rows
        clock = context.clock
        for stage, seconds in done.seconds.items():
            # Processes compile at the same time.
            shared = len(context.devices) if stage == "compile" else 1
            clock.add(stage, seconds / shared)
        clock.add_chunk(replica, num_rows, done.batch_size, done.bytes_in)
        size = context.micro_batch(chunk.inputs, done.batch_size)
        padded = ceil_div(max(num_rows, 1), size) * size
        weight = context.weight(chunk.inputs, padded)
        sizes = (weight, done.seconds["compute"], done.batch.num_bytes)
        context.chunk_sizes.record(*sizes)
        batch.most = done.most or batch.most
        with self._lock:
            for back_off in done.back_offs:
                if back_off.batch_size < batch.size:  # not recorded for another process
                    clock.add_back_off(back_off)
                    batch.change(back_off.batch_size)


class RayBackend:
    """A `Backend` of one process per device, each with all models.

    The keys of `files` are the names of the models in errors.
    """

    def __init__(
        self, files: dict[str, ModelFile], options: Options, spread: RayOptions
    ):
        _leave_gpu_memory()
        ray = connect(spread.ray_address)
        plan = make_plan(spread, ray.nodes())
        wait_for_room(ray, plan)
        self._chunks = options.chunks(on_gpus=plan.gpus_per_actor > 0)
        inner = dataclasses.replace(options, engine="threads", profile=None)
        # Views hold functions of the user's own.
        arguments = (ray.put(pack((files, inner))), plan.cpus_per_actor)
        self._actors = Actors(ray, plan, sum(self._chunks.values()), arguments)
        self.close = self._actors.close
        about = self._actors.abouts[0]
        self.input_spec, self.floats = about.input_spec, about.floats
        self.hardware = [each.hardware[0] for each in self._actors.abouts]
        self.choices, self._weight_bytes = about.choices, about.weight_bytes
        self.feeding = about.feeding
        self.output_shapes, self.called = about.output_shapes, about.called
        self.options, self._about = options, (about.names, about.dtypes)
        self.is_remote = True
        self._digest: str | None = None
        self._criteria: dict[str, Criteria] = {}

    def preprocessing(self, raw_spec: Nest) -> None:
        """None: each process preprocesses the rows that it runs."""
        del raw_spec

    @property
    def devices(self) -> tuple[str, ...]:
        """Machine, process and device of each replica."""
        return tuple(map(str, self._actors.abouts))

    @property
    def model(self) -> NoReturn:
        """The model is in other processes."""
        raise AttributeError(
            'With engine="ray" the model lives in other processes. Load it once more '
            "with keras.models.load_model to look at it."
        )

    @property
    def strategy(self) -> NoReturn:
        """Each process has a strategy of its own."""
        raise AttributeError('With engine="ray" no strategy spans the processes.')

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet."""
        if self.input_spec is None:
            self._actors.build(example)

    def engine(self, context: Context) -> Engine:
        """Threads that each wait for one process."""
        self._actors.refill()
        known = {"weight_bytes": self._weight_bytes, "makes_each": True, **self._chunks}
        context = context.fitted(self.choices, **known)
        return ThreadsEngine(context, RemoteChunks(self._actors, context))

    def criteria(self, spec: Nest) -> Criteria:
        """What `evaluate` computes from the outputs for rows of a spec."""
        if repr(spec) not in self._criteria:
            what = "Reading the compile settings of the model"
            packed: Packed = self._actors.call(0, "criteria", spec, what=what)
            self._criteria[repr(spec)] = packed.unpack()
        return self._criteria[repr(spec)]

    def try_padded(
        self,
        head: Head,
        spec: Nest,
        padded: Nest,
        lengths: Sequence[int],
        *,
        side: str,
        unmasked: bool,
    ) -> PaddedOutputs:
        """Runs rows alone and padded in a process; see `Backend.try_padded`."""
        given = head, spec, padded, lengths
        how = {"side": side, "unmasked": unmasked}
        what = "Trying rows alone and padded"
        return self._actors.call(0, "try_padded", given, how, what=what)

    def describe(self) -> str:
        """Models, processes and options in one line, for a person."""
        return self.options.describe(*self._about, self.devices)

    def digest(self) -> str:
        """A short hash of what the model computes."""
        if self._digest is None:
            what = "Computing the digest of the model"
            self._digest = str(self._actors.call(0, "ask", "digest", what=what))
        return self._digest


def _leave_gpu_memory() -> None:
    """Keeps TensorFlow in this process, which runs no model, off the GPUs' memory."""
    try:
        for gpu in tf.config.list_physical_devices("GPU"):
            tf.config.experimental.set_memory_growth(gpu, True)
    except RuntimeError:
        warn(
            "TensorFlow has started in this process and holds the memory of its GPUs, "
            'which the processes of engine="ray" need. Make the Predictor first, from '
            "a file, or call tf.config.experimental.set_memory_growth before.",
            RuntimeWarning,
        )
