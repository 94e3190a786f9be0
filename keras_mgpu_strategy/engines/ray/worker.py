"""What runs in each process: one replica of the model on the device of that process."""

import contextlib
import dataclasses
import os
import pickle
import threading
import traceback

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy import heads
from keras_mgpu_strategy.backing_off import BatchSize
from keras_mgpu_strategy.engines.local import LocalBackend
from keras_mgpu_strategy.engines.local_chunks import LocalChunks
from keras_mgpu_strategy.engines.ray.model_file import ModelFile
from keras_mgpu_strategy.engines.work import Work
from keras_mgpu_strategy.feed import Chunk
from keras_mgpu_strategy.marking import marks_of
from keras_mgpu_strategy.options import Options
from keras_mgpu_strategy.pace import Pace
from keras_mgpu_strategy.report import BackOff, StageClock
from keras_mgpu_strategy.signatures import SpecMemory
from keras_mgpu_strategy.types import HostBatch, NamedRows, Nest, Source


@dataclasses.dataclass(frozen=True)
class About:
    """What a process says of itself.

    Args:
        input_spec: As of `ReplicatedModel`.
        device: Name of its device.
        node: The machine.
        pid: The process.
    """

    input_spec: Nest | None
    device: str
    node: str
    pid: int


@dataclasses.dataclass(frozen=True)
class Task:
    """A chunk, and how to run it.

    Args:
        chunk: The rows; its inputs are arrays, or `NamedRows` that the process reads.
        batch_size: Per-replica batch.
        is_fixed: Whether the model takes no other.
        head: What is done to the outputs on the device.
    """

    chunk: Chunk
    batch_size: int
    is_fixed: bool
    head: heads.Head


@dataclasses.dataclass(frozen=True)
class Done:
    """The results of a task.

    Args:
        batch: The results.
        missing: Which rows could not be read, boolean, or None.
        batch_size: Per-replica batch at the end.
        bytes_in: Bytes of input, padding included.
        seconds: Stage -> time, "compile" among them.
        back_offs: Batches that did not fit into memory.
    """

    batch: HostBatch
    missing: np.ndarray | None
    batch_size: int
    bytes_in: int
    seconds: dict[str, float]
    back_offs: tuple[BackOff, ...]


@dataclasses.dataclass(frozen=True)
class Failed:
    """An exception of a task, as it was raised.

    Args:
        error: The exception.
        trace: Its traceback, as text.
    """

    error: Exception
    trace: str


class Worker:
    """One replica in a process of its own; its methods are called through Ray.

    Args:
        model: The model.
        options: How it runs.
        num_threads: Threads of an op where the process has no GPU.
    """

    def __init__(self, model: ModelFile, options: Options, num_threads: int):
        _configure(num_threads)
        self._backend = LocalBackend(model.read(options.precision), options)
        self._specs = SpecMemory()
        self._pace = Pace(1)
        self._slot = threading.Semaphore(self._backend.in_flight)
        self._sources: dict[str, Source] = {}
        self._lock = threading.Lock()

    def about(self) -> About:
        """What the driver needs to know."""
        device = self._backend.devices[0].rpartition("device:")[2]
        node = os.uname().nodename
        return About(self._backend.input_spec, device, node, os.getpid())

    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet."""
        self._backend.build(example)

    def digest(self) -> str:
        """A short name for what the model computes."""
        return self._backend.digest()

    def run(self, task: Task) -> Done | Failed:
        """Runs a chunk."""
        try:
            return self._run(task)
        except Exception as error:
            return Failed(_picklable(error), traceback.format_exc())

    def _run(self, task: Task) -> Done:
        clock = StageClock(1)
        work = Work(
            devices=self._backend.devices,
            specs=self._specs,
            pace=self._pace,
            clock=clock,
            head=task.head,
            is_fixed=task.is_fixed,
        )
        chunk, missing = self._read(task.chunk, clock)
        batch = BatchSize(task.batch_size, clock, is_fixed=task.is_fixed)
        runner = LocalChunks(self._backend.fitted(work), self._backend.compiler)
        results = runner.run(chunk, batch, 0, self._slot)
        report = clock.report()
        return Done(
            results,
            missing,
            batch.size,
            report.bytes_in,
            clock.seconds(),
            report.back_offs,
        )

    def _read(self, chunk: Chunk, clock: StageClock) -> tuple[Chunk, np.ndarray | None]:
        """The chunk with its rows in memory, and which of them could not be read."""
        named = chunk.inputs
        if not isinstance(named, NamedRows):
            return chunk, None
        with self._lock, clock.stage("input"):
            if named.key not in self._sources:
                self._sources = {named.key: named.open_fn()}
            source = self._sources[named.key]
            batches = source.batches(named.stop - named.start, named.start)
            with contextlib.closing(batches):  # pyright: ignore[reportArgumentType]
                rows = next(batches)
        missing = marks_of(source)(named.start, named.stop).missing
        return Chunk(chunk.start, chunk.num_rows, rows.inputs), missing


def _configure(num_threads: int) -> None:
    """Sets TensorFlow up for a process that may share its GPU with others."""
    gpus = tf.config.list_physical_devices("GPU")
    for gpu in gpus:
        tf.config.experimental.set_memory_growth(gpu, True)
    if not gpus:
        tf.config.threading.set_intra_op_parallelism_threads(num_threads)


def _picklable(error: Exception) -> Exception:
    """The error itself, or one of the same text where it cannot travel."""
    try:
        pickle.loads(pickle.dumps(error))
    except Exception:
        return RuntimeError(f"{type(error).__name__}: {error}")
    return error
