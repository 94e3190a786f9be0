"""What runs in each process: one replica of the model on the device of that process."""

import dataclasses
import os
import threading
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import models
from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.signatures import SpecMemory, StepKind, spec_key
from keras_mgpu_strategy.devices.scope import make_strategy
from keras_mgpu_strategy.engines.adaptive_batch import Limits
from keras_mgpu_strategy.engines.context import ChunkSizes, Context
from keras_mgpu_strategy.engines.local import LocalChunks, local_backend
from keras_mgpu_strategy.engines.options import Options
from keras_mgpu_strategy.engines.ray import process
from keras_mgpu_strategy.engines.ray.model_file import ModelFile
from keras_mgpu_strategy.engines.ray.pickling import Failed, Packed, answering, pack
from keras_mgpu_strategy.engines.track import Track
from keras_mgpu_strategy.models import Preprocessing
from keras_mgpu_strategy.report import BackOff, StageClock
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.token_batches import ONE_LENGTH, TokenBatches
from keras_mgpu_strategy.system.closing import closing
from keras_mgpu_strategy.types import (
    NO_MARKS,
    Feeding,
    HostBatch,
    InputBatch,
    NamedRows,
    Nest,
    RowMarks,
    Source,
)

_MOST_SOURCES = 4


@dataclasses.dataclass(frozen=True)
class About:
    """What a process reports about itself; a GPU goes by its number on the machine."""

    input_spec: Nest | None
    floats: tf.DType
    feeding: Feeding
    output_shapes: Nest | None
    called: tuple[str, ...] | None
    choices: tuple[StepKind, ...]
    weight_bytes: int
    hardware: list[str]
    names: tuple[str, ...]
    dtypes: tuple[str, ...]
    device: str
    node: str
    pid: int

    def __str__(self) -> str:
        """Machine, process and device."""
        return f"{self.node}/{self.pid}/{self.device}"


@dataclasses.dataclass(frozen=True)
class Done:
    """A chunk that was run; `stopped_by` is why its remaining rows were not read."""

    batch: HostBatch
    stopped_by: Failed | None
    batch_size: int
    bytes_in: int
    seconds: dict[str, float]  # by stage, "compile" among them
    back_offs: tuple[BackOff, ...]
    most: int | None


class Worker:
    """One replica in its process; an op has `num_threads` if there is no GPU."""

    def __init__(self, packed: Packed, num_threads: int):
        self._arguments = (packed, num_threads)
        self._specs = SpecMemory()
        self._chunk_sizes = ChunkSizes(1)
        self._limits: dict[Any, Limits] = {}
        self._sources: dict[str, Source] = {}
        self._raw_specs = SpecMemory()
        self._preprocess: dict[Any, Preprocessing | None] = {}
        self._lock = threading.Lock()

    @answering
    def open(self) -> About:
        """Reads the models; called once, before everything else."""
        packed, num_threads = self._arguments
        device = process.configure(num_threads)
        models.set_apart()
        unpacked: tuple[dict[str, ModelFile], Options] = packed.unpack()
        files, options = unpacked
        how = (options.precision, options.output_names, make_strategy())
        members = [file.read(*how) for file in files.values()]
        self._backend = backend = local_backend(members, list(files), options)
        self._track = Track(backend.chunks["in_flight"])
        del self._arguments
        return About(
            backend.input_spec,
            backend.floats,
            backend.feeding,
            backend.output_shapes,
            backend.called,
            backend.choices,
            backend.weight_bytes,
            backend.hardware,
            *backend.about(),
            device,
            os.uname().nodename,
            os.getpid(),
        )

    @answering
    def build(self, example: Nest) -> None:
        """Creates the variables of a model that has none yet, from raw rows."""
        preprocess = self._preprocessing(example)
        self._backend.build(example if preprocess is None else preprocess(example))

    @answering
    def criteria(self, spec: Nest) -> Packed:
        """What `evaluate` computes from the outputs for rows of a spec."""
        return pack(self._backend.criteria(spec))

    @answering
    def try_padded(
        self, given: tuple[Any, ...], how: dict[str, Any]
    ) -> models.PaddedOutputs:
        """Runs rows alone and padded."""
        return self._backend.try_padded(*given, **how)

    @answering
    def ask(self, about: str) -> Any:
        """What the backend says about the model: its "digest" or "num_ops"."""
        return getattr(self._backend, about)()

    @answering
    def run(
        self,
        chunk: InputBatch,
        batch_size: int,
        step: StepKind,
        is_fixed: bool,
        head: heads.Head,
        run: int,
        tokens: TokenBatches = ONE_LENGTH,
        spec: Nest = None,
    ) -> Done:
        """Runs a chunk, whose inputs are arrays, or `NamedRows` to be read here.

        With `tokens`, `spec` is that of all rows, whatever their length.
        """
        clock = StageClock(1)
        chunk, marks, stopped_by = self._read(chunk, clock)
        context = Context(
            devices=self._backend.devices,
            specs=self._specs,
            chunk_sizes=self._chunk_sizes,
            clock=clock,
            head=head,
            is_fixed=is_fixed,
            limits=self._limits.setdefault((head, tokens), Limits()),
            run=run,
            preprocess=self._preprocessing(chunk.inputs),
            tokens=tokens,
        )
        self._specs.cover(chunk.inputs if spec is None else spec)
        context = dataclasses.replace(self._backend.fitted(context), step=step)
        batch = context.batch(batch_size)
        runner = LocalChunks(context, self._backend.compiler)
        results = runner.run(chunk, batch, 0, self._track)
        report, ran = clock.report(), dataclasses.replace(results, marks=marks)
        spent = (report.bytes_in, clock.seconds(), report.back_offs, batch.most)
        return Done(ran, stopped_by, batch.size, *spent)

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
        self, chunk: InputBatch, clock: StageClock
    ) -> tuple[InputBatch, RowMarks, Failed | None]:
        """The rows in memory, which could not be read, and what stopped reading."""
        named = chunk.inputs
        if not isinstance(named, NamedRows):
            return chunk, NO_MARKS, None
        with clock.stage("input"):
            source = self._opened(named)
            batch, stopped_by = _rows(source, named)
        marks = marks_of(source)(named.start, named.start + batch.num_rows)
        chunk = dataclasses.replace(batch, start=chunk.start)
        # The process that holds the input knows the names.
        return chunk, RowMarks(missing=marks.missing), stopped_by

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
