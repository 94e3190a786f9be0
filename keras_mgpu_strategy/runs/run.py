"""Runs of a model that lives on every device: x -> ModelRows -> Run -> HostBatch.

Anything wrong with the input is found before the engine is asked for the first row, and
the report is delivered however a run ends.
"""

import contextlib
import dataclasses
import functools
import itertools
import os
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute.heads import Head
from keras_mgpu_strategy.compute.signatures import SpecMemory, row_bytes, spec_key
from keras_mgpu_strategy.compute.sizes import first_guess, most_batch_rows, per_replica
from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.engines.adaptive_batch import Limits
from keras_mgpu_strategy.engines.context import ChunkSizes, Context
from keras_mgpu_strategy.engines.feed import example_inputs
from keras_mgpu_strategy.engines.interface import Backend, Engine
from keras_mgpu_strategy.models import first_run
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.report import Report, StageClock
from keras_mgpu_strategy.runs.model_rows import (
    Attach,
    ModelRows,
    as_it_is,
    model_rows,
)
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.fork_guard import HomeProcess, StaysHere
from keras_mgpu_strategy.system.integers import ceil_div, next_power_of_two
from keras_mgpu_strategy.types import HostBatch, Nest


@dataclasses.dataclass(frozen=True)
class Run:
    """A checked run; `batch_size` is per replica, `global_batch` over all replicas."""

    rows: ModelRows
    engine: Engine
    clock: StageClock
    batch_size: int
    global_batch: int
    when_done: Callable[[Report], None]
    profile: str | os.PathLike[str] | None
    home: HomeProcess

    def batches(self, start: int) -> Generator[HostBatch, None, None]:
        """Yields results in order from row `start` onwards; at least one batch."""
        self.home.check()
        profiler = contextlib.nullcontext()
        if self.profile is not None:
            profiler = tf.profiler.experimental.Profile(expanded(self.profile))
        try:
            with profiler:
                yield from self._counted(start)
        finally:
            # In a forked process a thread may hold the clock's lock forever.
            if self.home.is_this:
                self.when_done(self.clock.report())

    def _counted(self, start: int) -> Iterator[HostBatch]:
        marks_between = marks_of(self.rows.whole)
        for batch in self.engine.run(self.rows.source, self.batch_size, start):
            self.clock.add_delivered(batch.num_rows, batch.num_bytes)
            marks = marks_between(batch.start, batch.stop)
            if batch.marks.missing is not None:  # by a process that read the rows
                marks = dataclasses.replace(marks, missing=batch.marks.missing)
            yield dataclasses.replace(batch, marks=marks)
            self.home.check()


@dataclasses.dataclass
class _Learned:
    """What runs have shown about rows of one signature: a tuned batch size and more."""

    chunk_sizes: ChunkSizes
    limits: Limits = dataclasses.field(default_factory=Limits)
    batch_size: int | None = None


class Runner:
    """Prepares the runs of one model; `report` is of the run that ended last."""

    def __init__(self, backend: Backend, profile: str | os.PathLike[str] | None = None):
        self.report: Report | None = None
        self.backend = backend
        self._profile = profile
        self._home = HomeProcess()
        self._specs = SpecMemory()
        self._learned: dict[Any, _Learned] = {}
        self._runs = itertools.count(first_run())

    @property
    def num_replicas(self) -> int:
        """How many replicas there are."""
        return len(self.backend.devices)

    def prepare(
        self,
        x: Any,
        head: Head,
        *,
        batch_size: int | None = None,
        steps: int | None = None,
        shard: Shard | None = None,
        keep: Sequence[str] = (),
        attach: Attach = as_it_is,
        pad: Pad | None = None,
    ) -> Run:
        """Checks the input, whose marks `attach` may add to, and makes a run of it."""
        self._home.check()
        head = _fitting(head, self.backend)
        how = (batch_size, steps, shard, keep, attach, pad)
        rows = model_rows(x, self.backend, *how)
        self.backend.build(example_inputs(rows.spec, 1))
        fixed = _fixed_batch(self.backend.input_spec)
        learned = self._known(rows, head)
        tunes = batch_size is None and fixed is None and learned.batch_size is None
        context = self._context(rows, head, learned, is_fixed=fixed is not None)
        context = dataclasses.replace(context, tunes=tunes)
        size = _batch_size(batch_size, learned, rows, fixed, self.backend)
        return Run(
            rows=rows,
            engine=self.backend.engine(context),
            clock=context.clock,
            batch_size=size,
            global_batch=batch_size or size * self.num_replicas,
            when_done=functools.partial(self._learn, learned),
            profile=self._profile,
            home=self._home,
        )

    def _context(
        self, rows: ModelRows, head: Head, learned: _Learned, *, is_fixed: bool
    ) -> Context:
        return Context(
            devices=self.backend.devices,
            specs=self._specs,
            chunk_sizes=learned.chunk_sizes,
            clock=StageClock(self.num_replicas),
            head=head,
            is_fixed=is_fixed,
            limits=learned.limits,
            most_batch=_most_batch(self.backend),
            run=next(self._runs),
            spec=rows.spec,
            preprocess=rows.preprocess,
        )

    def _known(self, rows: ModelRows, head: Head) -> _Learned:
        new = _Learned(ChunkSizes(self.num_replicas))
        return self._learned.setdefault((spec_key(rows.spec), head), new)

    def _learn(self, learned: _Learned, report: Report) -> None:
        self.report = report
        if len(report.tried_batches) > 1:
            learned.batch_size = report.batch_size


def _fitting(head: Head, backend: Backend) -> Head:
    """The head for results of a backend, if declared outputs have enough classes."""
    how = {"dtype": backend.output_dtype, "combine": backend.combine}
    head = dataclasses.replace(head, **how)
    head.check(backend.output_shapes)
    return head


def _batch_size(
    wanted: int | None,
    learned: _Learned,
    rows: ModelRows,
    fixed: int | None,
    backend: Backend,
) -> int:
    """The initial per-replica batch, for a global one or None."""
    num_rows, num = rows.source.num_rows, len(backend.devices)
    if wanted is not None:
        size = per_replica(wanted, num)
        if fixed not in (None, size):
            raise ValueError(
                f"batch_size={wanted} gives {size} rows to each of {num} replicas, but "
                f"the model was built for batches of exactly {fixed}. Pass "
                f"batch_size={fixed * num} or None."
            )
    elif fixed or learned.batch_size is None:
        guess = first_guess(row_bytes(rows.spec), num_rows, num)
        size = fixed or min(guess, _most_batch(backend) or guess)
    else:  # no more than the rows need
        size = learned.batch_size
        if num_rows is not None:
            size = min(size, next_power_of_two(ceil_div(num_rows, num)))
    return learned.limits.at_most(size)


def _most_batch(backend: Backend) -> int | None:
    """The largest batch to choose where the host holds what a model computes."""
    shapes = backend.output_shapes
    if shapes is None or any(map(has_own_memory, backend.devices)):
        return None
    ranked = [shape for shape in tf.nest.flatten(shapes) if shape.rank]
    return most_batch_rows(row_bytes(list(map(tf.TensorSpec, ranked))))


def _fixed_batch(input_spec: Nest) -> int | None:
    """The batch axis that a model was built with, if not None."""
    if input_spec is None:
        return None
    sizes = [leaf.shape[0] for leaf in tf.nest.flatten(input_spec) if leaf.shape.rank]
    return next((size for size in sizes if size is not None), None)


class OnDevices(StaysHere):
    """A model that lives on every device, and the report of its last run."""

    def __init__(self, backend: Backend, profile: str | os.PathLike[str] | None):
        self._runner = Runner(backend, profile)

    @property
    def model(self) -> Any:
        """The model whose variables live on every device; `fit` and `evaluate` work."""
        return self._runner.backend.model

    @property
    def strategy(self) -> Any:
        """The `tf.distribute.Strategy` over the devices."""
        return self._runner.backend.strategy

    @property
    def devices(self) -> tuple[str, ...]:
        """Full name of each replica's device."""
        return self._runner.backend.devices

    @property
    def num_replicas(self) -> int:
        """How many replicas there are."""
        return self._runner.num_replicas

    @property
    def report(self) -> Report | None:
        """Report of the run that ended last, in any thread; None before the first."""
        return self._runner.report
