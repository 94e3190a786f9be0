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
from keras_mgpu_strategy.compute.signatures import SpecMemory, StepKind, spec_key
from keras_mgpu_strategy.compute.sizes import per_replica
from keras_mgpu_strategy.engines.context import ChunkSizes, Context
from keras_mgpu_strategy.engines.feed import example_inputs
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.engines.running import Engine
from keras_mgpu_strategy.models import first_run
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.report import Report, StageClock
from keras_mgpu_strategy.runs.learned import (
    Learned,
    described,
    first_batch,
    fixed_batch,
    most_batch,
)
from keras_mgpu_strategy.runs.model_rows import Attach, ModelRows, model_rows
from keras_mgpu_strategy.runs.padded import PaddedRun
from keras_mgpu_strategy.runs.tuning import TuningFile
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.sources.token_batches import ONE_LENGTH, TokenBatches
from keras_mgpu_strategy.system.environment import expanded
from keras_mgpu_strategy.system.fork_guard import HomeProcess
from keras_mgpu_strategy.types import HostBatch


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
    padded: PaddedRun | None = None  # rows of unequal length

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
        for batch in self._results(start):
            self.clock.add_delivered(batch.num_rows, batch.num_bytes)
            marks = marks_between(batch.start, batch.stop)
            if batch.marks.missing is not None:  # by a process that read the rows
                marks = dataclasses.replace(marks, missing=batch.marks.missing)
            yield dataclasses.replace(batch, marks=marks)
            self.home.check()

    def _results(self, start: int) -> Iterator[HostBatch]:
        source, size = self.rows.source, self.batch_size
        if self.padded is None:
            return self.engine.run(source, size, start)
        return self.padded.results(self.engine, source, size, start, self.clock)


class Runner:
    """Prepares the runs of one model; `report` is of the run that ended last."""

    def __init__(
        self,
        backend: Backend,
        profile: str | os.PathLike[str] | None = None,
        tuning: TuningFile | None = None,
    ):
        self.report: Report | None = None
        self.backend = backend
        self._profile = profile
        self._tuning = tuning
        self._home = HomeProcess()
        self._specs = SpecMemory()
        self._learned: dict[Any, Learned] = {}
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
        step: StepKind | None = None,
        keep: Sequence[str] = (),
        attach: Attach | None = None,
        pad: Pad | None = None,
    ) -> Run:
        """Checks the input, whose marks `attach` may add to, and makes a run of it.

        `step` is that of an earlier run, which this one resumes.
        """
        self._home.check()
        head = _fitting(head, self.backend)
        rows = model_rows(x, self.backend, batch_size, steps, shard, keep, attach, pad)
        self.backend.build(example_inputs(rows.spec, 1, rows.longest))
        fixed = fixed_batch(self.backend.input_spec)
        padded = self._padded(rows, head, batch_size, fixed)
        tokens = padded and padded.batches
        given = batch_size and per_replica(batch_size, self.num_replicas)
        learned = self._known(rows, head, given, tokens)
        tunes = (batch_size, fixed, tokens, learned.batch_size) == (None,) * 4
        size = first_batch(batch_size, learned, rows, fixed, self.backend, tokens)
        # Chunks of different lengths cannot be compared.
        tries = step is None and tokens is None and learned.best_step(size) is None
        step = step or learned.step(size, rows.source.num_rows, self.num_replicas)
        begins = dict(tunes=tunes, tries=tries, step=step, tokens=tokens or ONE_LENGTH)
        context = self._context(rows, head, learned, fixed, begins)
        return Run(
            rows=rows,
            engine=self.backend.engine(context),
            clock=context.clock,
            batch_size=size,
            global_batch=batch_size or size * self.num_replicas,
            when_done=functools.partial(self._learn, learned, given, context.clock),
            profile=self._profile,
            home=self._home,
            padded=padded,
        )

    def _padded(
        self, rows: ModelRows, head: Head, batch_size: int | None, fixed: int | None
    ) -> PaddedRun | None:
        """How rows of unequal length are run, and which results vary with them."""
        how = rows.padded
        if how is None:
            return None
        most = most_batch(self.backend, rows.longest)
        batches = how.batches(batch_size, fixed, most, self.num_replicas)
        outputs = how.tried(self.backend, head, rows.spec)
        batches = dataclasses.replace(
            batches, is_static=outputs.is_static, window=how.pad.window
        )
        return PaddedRun(how, batches, outputs)

    def _context(
        self,
        rows: ModelRows,
        head: Head,
        learned: Learned,
        fixed: int | None,
        begins: dict[str, Any],
    ) -> Context:
        return Context(
            devices=self.backend.devices,
            specs=self._specs,
            chunk_sizes=learned.chunk_sizes,
            clock=StageClock(self.num_replicas),
            head=head,
            is_fixed=fixed is not None,
            **begins,
            limits=learned.limits,
            most_batch=most_batch(self.backend),
            run=next(self._runs),
            spec=rows.spec,
            preprocess=rows.preprocess,
        )

    def _known(
        self,
        rows: ModelRows,
        head: Head,
        given: int | None,
        tokens: TokenBatches | None,
    ) -> Learned:
        new = Learned(ChunkSizes(self.num_replicas))
        key = (spec_key(rows.spec), head, tokens)
        learned = self._learned.setdefault(key, new)
        tuning = None if tokens else self._tuning  # which knows no lengths
        if tuning is not None and given not in learned.asked:
            run = described(self.backend, rows.spec, head, given)
            learned.asked[given] = run
            if (found := tuning.find(run)) is not None:
                learned.recall(found, given)
        return learned

    def _learn(
        self, learned: Learned, given: int | None, clock: StageClock, report: Report
    ) -> None:
        self.report = report
        found = learned.learn(report, clock.best_step)
        if found is not None and self._tuning is not None and given in learned.asked:
            self._tuning.put(learned.asked[given], found)


def _fitting(head: Head, backend: Backend) -> Head:
    """The head for results of a backend, if declared outputs have enough classes."""
    options = backend.options
    head = dataclasses.replace(
        head, dtype=options.output_dtype, combine=options.combine
    )
    head.check(backend.output_shapes)
    return head
