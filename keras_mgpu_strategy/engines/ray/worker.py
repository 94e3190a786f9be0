"""What runs in each process: one replica of the model on the device of that process."""

import dataclasses
import os
import threading
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy import models
from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.signatures import SpecMemory, spec_key
from keras_mgpu_strategy.engines.chunk_sizes import Pace
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.feed import Chunk
from keras_mgpu_strategy.engines.local import LocalBackend
from keras_mgpu_strategy.engines.local_chunks import LocalChunks
from keras_mgpu_strategy.engines.memory_plans import Limits
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray import process
from keras_mgpu_strategy.engines.ray.model_file import ModelFile
from keras_mgpu_strategy.engines.ray.pickling import Packed
from keras_mgpu_strategy.engines.ray.remote_errors import Failed, answering
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.models import Preprocessing
from keras_mgpu_strategy.report import BackOff, StageClock
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.system.closing import closing
from keras_mgpu_strategy.types import (
    Feeding,
    HostBatch,
    InputBatch,
    NamedRows,
    Nest,
    Source,
)

_MOST_SOURCES = 4


@dataclasses.dataclass(frozen=True)
class About:
    """What a process reports about itself.

    Args:
        input_spec: As in `ReplicatedModel`.
        floats: As in `Backend`.
        feeding: As in `ReplicatedModel`.
        device: Its device; a GPU by its number on the machine.
        node: The machine.
        pid: The process.
    """

    input_spec: Nest | None
    floats: tf.DType
    feeding: Feeding
    device: str
    node: str
    pid: int

    def __str__(self) -> str:
        """Machine, process and device."""
        return f"{self.node}/{self.pid}/{self.device}"


@dataclasses.dataclass(frozen=True)
class Task:
    """A chunk, and how to run it.

    Args:
        chunk: The rows; its inputs are arrays, or `NamedRows` that the process reads.
        batch_size: Per-replica batch.
        is_fixed: Whether the model takes no other size.
        head: What is done to the outputs on the device.
        run: Number of the run.
    """

    chunk: Chunk
    batch_size: int
    is_fixed: bool
    head: heads.Head
    run: int


@dataclasses.dataclass(frozen=True)
class Done:
    """The results of a task.

    Args:
        batch: The results.
        stopped_by: Why the remaining rows of the chunk were not read, if there are any.
        missing: Which rows could not be read, boolean, or None.
        batch_size: Per-replica batch at the end.
        bytes_in: Bytes of input, padding included.
        seconds: Stage -> time, "compile" among them.
        back_offs: Batches that did not fit into memory.
        most: The largest batch that memory allows; None if not determined.
    """

    batch: HostBatch
    stopped_by: Failed | None
    missing: np.ndarray | None
    batch_size: int
    bytes_in: int
    seconds: dict[str, float]
    back_offs: tuple[BackOff, ...]
    most: int | None


class Worker:
    """One replica in a process of its own; its methods are called through Ray.

    Args:
        model: The model, a `ModelFile`.
        options: How it runs.
        num_threads: Threads of an op if the process has no GPU.
    """

    def __init__(self, model: Packed, options: Options, num_threads: int):
        self._arguments = (model, options, num_threads)
        self._specs = SpecMemory()
        self._pace = Pace(1)
        self._limits: dict[heads.Head, Limits] = {}
        self._sources: dict[str, Source] = {}
        self._raw_specs = SpecMemory()
        self._preprocess: dict[Any, Preprocessing | None] = {}
        self._lock = threading.Lock()

    @answering
    def open(self) -> About:
        """Reads the model; called once, before everything else."""
        packed, options, num_threads = self._arguments
        gpus = process.gpu_ids()
        process.configure(num_threads, gpus)
        models.set_apart()
        model: ModelFile = packed.unpack()
        self._backend = LocalBackend(model.read(options.precision), options)
        self._track = Track(self._backend.chunks["in_flight"])
        del self._arguments
        device = f"GPU:{gpus[0]}" if gpus else "CPU:0"
        backend = self._backend
        declared = (backend.input_spec, backend.floats, backend.feeding)
        return About(*declared, device, process.node(), os.getpid())

    @answering
    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet, from raw rows."""
        preprocess = self._preprocessing(example)
        self._backend.build(example if preprocess is None else preprocess(example))

    @answering
    def digest(self) -> str:
        """A short hash of what the model computes."""
        return self._backend.digest()

    @answering
    def run(self, task: Task) -> Done:
        """Runs a chunk."""
        clock = StageClock(1)
        chunk, stopped_by, missing = self._read(task.chunk, clock)
        work = Work(
            devices=self._backend.devices,
            specs=self._specs,
            pace=self._pace,
            clock=clock,
            head=task.head,
            is_fixed=task.is_fixed,
            limits=self._limits.setdefault(task.head, Limits()),
            run=task.run,
            preprocess=self._preprocessing(chunk.inputs),
        )
        work = self._backend.fitted(work)
        batch = work.batch(task.batch_size)
        runner = LocalChunks(work, self._backend.compiler)
        results = runner.run(chunk, batch, 0, self._track)
        report = clock.report()
        return Done(
            results,
            stopped_by,
            missing,
            batch.size,
            report.bytes_in,
            clock.seconds(),
            report.back_offs,
            batch.most,
        )

    def _preprocessing(self, inputs: Nest) -> Preprocessing | None:
        """The model's own, for rows like these; traced ones are kept."""
        if not self._backend.feeding.raw:
            return None
        spec = self._raw_specs.cover(inputs)
        with self._lock:
            if spec_key(spec) not in self._preprocess:
                self._preprocess[spec_key(spec)] = self._backend.preprocessing(spec)
            return self._preprocess[spec_key(spec)]

    def _read(
        self, chunk: Chunk, clock: StageClock
    ) -> tuple[Chunk, Failed | None, np.ndarray | None]:
        """The rows in memory, what stopped reading, and which could not be read."""
        named = chunk.inputs
        if not isinstance(named, NamedRows):
            return chunk, None, None
        with clock.stage("input"):
            source = self._opened(named)
            batch, stopped_by = _rows(source, named)
        stop = named.start + batch.num_rows
        missing = marks_of(source)(named.start, stop).missing
        return Chunk(chunk.start, batch.num_rows, batch.inputs), stopped_by, missing

    def _opened(self, named: NamedRows) -> Source:
        """The input, opened once per run; those of a few runs are kept."""
        with self._lock:
            if named.key not in self._sources:
                while len(self._sources) >= _MOST_SOURCES:
                    del self._sources[next(iter(self._sources))]
                self._sources[named.key] = named.open_fn()
            return self._sources[named.key]


def _rows(source: Source, named: NamedRows) -> tuple[InputBatch, Failed | None]:
    """The rows before the first one that cannot be read, and why it cannot."""
    wanted = named.stop - named.start
    batches = source.batches(wanted, named.start)
    with closing(batches):
        batch = next(batches, None)
        if batch is not None and batch.num_rows == wanted:
            return batch, None
        try:
            next(batches, None)  # raises what is wrong with the next row
        except Exception as error:
            if batch is None:
                raise
            return batch, Failed.by(error)
    raise ValueError(
        f"Rows {named.start} to {named.stop} cannot be read: the input has other rows "
        "here than where the run began. It must be the same on every machine, and not "
        "change while it is read."
    )
