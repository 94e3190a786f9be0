"""Prepares runs of one replicated model: checks, batch size, engine.

Guarantee: anything wrong with the input is found before the engine is asked for the
first row.
"""

import dataclasses
import itertools
import os
from collections.abc import Iterator
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.signatures import (
    SpecMemory,
    example_inputs,
    row_bytes,
    spec_key,
)
from keras_mgpu_strategy.compute.sizes import first_guess, per_replica
from keras_mgpu_strategy.engines.chunk_sizes import ChunkSizes
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.interface import Backend
from keras_mgpu_strategy.engines.memory import Limits
from keras_mgpu_strategy.inputs import (
    as_source,
    check_batch_size,
    check_inputs,
    named_rows,
    origin_of,
    select_inputs,
)
from keras_mgpu_strategy.models import Preprocessing, first_run
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.report import Report, StageClock
from keras_mgpu_strategy.runs.run import Job
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.wrapping import Limited
from keras_mgpu_strategy.system.fork_guard import HomeProcess
from keras_mgpu_strategy.system.integers import ceil_div, next_power_of_two
from keras_mgpu_strategy.types import InputBatch, Nest, Source, Undeclared


class Runner:
    """Creates the jobs of one replicated model; keeps what was learned about it.

    Args:
        backend: Where the model lives.
        profile: Folder for traces of runs, or None.

    Attributes:
        backend: As given.
        report: Report of the run that ended last, in any thread; None before the first.
    """

    def __init__(self, backend: Backend, profile: str | os.PathLike[str] | None = None):
        self.report: Report | None = None
        self.backend = backend
        self._profile = profile
        self._home = HomeProcess()
        self._num_replicas = len(backend.devices)
        self._specs = SpecMemory()
        self._chunk_sizes: dict[Any, ChunkSizes] = {}
        self._tuned: dict[Any, int] = {}
        self._limits: dict[Any, Limits] = {}
        self._runs = itertools.count(first_run())

    @property
    def num_replicas(self) -> int:
        """How many replicas there are."""
        return self._num_replicas

    def digest(self) -> str:
        """A short hash of what the model computes."""
        return self.backend.digest()

    def job(
        self,
        x: Any,
        batch_size: int | None,
        steps: int | None,
        head: heads.Head,
        shard: Shard | None = None,
    ) -> Job:
        """Checks the input against the model and chooses batch size and engine.

        Raises:
            RuntimeError: This process was forked from the model's.
            TypeError: The inputs are of a type that cannot be read.
            ValueError: The inputs do not fit the model, each other or `batch_size`.
        """
        self._home.check()
        check_batch_size(batch_size, x)
        whole = self._whole(x, batch_size, steps)
        fitted, spec, preprocess = self._fitted(whole)
        source, first_row = _rows_of(shard, fitted)
        if self.backend.is_remote:
            source = named_rows(x, source, self._declared, self.backend.feeding)
        self.backend.build(example_inputs(spec, 1))
        key = (spec_key(spec), head)
        context = dataclasses.replace(
            self._context(key, batch_size, head), spec=spec, preprocess=preprocess
        )
        size = self._per_replica_batch(batch_size, source.num_rows, spec, key)
        size = context.limits.at_most(size)
        return Job(
            source=source,
            engine=self.backend.engine(context),
            clock=context.clock,
            batch_size=size,
            global_batch=batch_size or size * self._num_replicas,
            when_done=lambda report: self._learn(report, key),
            marks=marks_of(whole),
            origin_of=lambda: origin_of(whole),
            total_rows=whole.num_rows,
            first_row=first_row,
            profile=self._profile,
        )

    def _context(self, key: Any, batch_size: int | None, head: heads.Head) -> Context:
        fixed = _fixed_batch(self.backend.input_spec)
        return Context(
            devices=self.backend.devices,
            specs=self._specs,
            chunk_sizes=self._chunk_sizes.setdefault(
                key, ChunkSizes(self._num_replicas)
            ),
            clock=StageClock(self._num_replicas),
            head=head,
            is_fixed=fixed is not None,
            limits=self._limits.setdefault(key, Limits()),
            tunes=batch_size is None and fixed is None and key not in self._tuned,
            run=next(self._runs),
        )

    def _learn(self, report: Report, key: Any) -> None:
        self.report = report
        if len(report.tried_batches) > 1:
            self._tuned[key] = report.batch_size

    @property
    def _declared(self) -> Nest:
        """What is declared about the rows as they are read."""
        if self.backend.feeding.raw:
            return Undeclared(None)
        spec = self.backend.input_spec
        return Undeclared(self.backend.floats) if spec is None else spec

    def _whole(self, x: Any, batch_size: int | None, steps: int | None) -> Source:
        """All rows of the input."""
        source = as_source(
            x,
            steps=steps,
            batch_size=batch_size,
            input_spec=self._declared,
            feeding=self.backend.feeding,
        )
        if source.spec is not None:
            return source
        if self.backend.input_spec is None or self._is_preprocessed_elsewhere:
            raise ValueError(
                "The input has no batch at all, and the model does not declare its "
                "inputs, so the shape of the results is not known. Pass at least one "
                "batch, or arrays of shape (0, ...)."
            )
        return _NoRows(self.backend.input_spec)

    @property
    def _is_preprocessed_elsewhere(self) -> bool:
        return self.backend.feeding.raw and self.backend.is_remote

    def _fitted(self, whole: Source) -> tuple[Source, Nest, Preprocessing | None]:
        """The rows for the model, the spec of its inputs, and how they are made."""
        input_spec, feeding = self.backend.input_spec, self.backend.feeding
        if isinstance(whole, _NoRows):
            return whole, whole.spec, None
        preprocess = self.backend.preprocessing(whole.spec)
        spec = whole.spec if preprocess is None else preprocess.spec
        # Keras does not check what a user's `predict_step` is given either.
        if feeding.whole is None and not self._is_preprocessed_elsewhere:
            check_inputs(spec, input_spec)
        if feeding.whole is not None or feeding.raw:
            return whole, spec, preprocess
        source = select_inputs(whole, input_spec)
        return source, source.spec, None

    def _per_replica_batch(
        self, batch_size: int | None, num_rows: int | None, spec: Nest, key: Any
    ) -> int:
        fixed = _fixed_batch(self.backend.input_spec)
        if batch_size is None:
            return fixed or self._automatic_batch(num_rows, spec, key)
        wanted = per_replica(batch_size, self._num_replicas)
        if fixed not in (None, wanted):
            raise ValueError(
                f"batch_size={batch_size} gives {wanted} rows to each of "
                f"{self._num_replicas} replicas, but the model was built for batches "
                f"of exactly {fixed}. Pass batch_size={fixed * self._num_replicas} or "
                "None."
            )
        return wanted

    def _automatic_batch(self, num_rows: int | None, spec: Nest, key: Any) -> int:
        """The best known for such rows, or a guess; no more than the rows need."""
        num_replicas, tuned = self._num_replicas, self._tuned.get(key)
        if tuned is None:
            return first_guess(row_bytes(spec), num_rows, num_replicas)
        if num_rows is None:
            return tuned
        return min(tuned, next_power_of_two(ceil_div(num_rows, num_replicas)))


def _fixed_batch(input_spec: Nest) -> int | None:
    """The batch axis that a model was built with, if not None."""
    if input_spec is None:
        return None
    sizes = [leaf.shape[0] for leaf in tf.nest.flatten(input_spec) if leaf.shape.rank]
    return next((size for size in sizes if size is not None), None)


def _rows_of(shard: Shard | None, source: Source) -> tuple[Source, int]:
    """The source up to the end of a shard, and the shard's first row."""
    if shard is None:
        return source, 0
    if source.num_rows is None:
        raise ValueError(
            f"shard=({shard.index}, {shard.count}) needs an input whose number of rows "
            "is known before it is read, so not a generator or a tf.data.Dataset. Pass "
            "arrays or files, or give each machine its own part of the input."
        )
    rows = shard.rows(source.num_rows)
    return Limited(source, rows.stop, on_short=lambda rows: None), rows.start


@dataclasses.dataclass(frozen=True)
class _NoRows:
    """A source without rows, like an empty generator."""

    spec: Nest
    num_rows: int = 0

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        return iter(())
