"""Prepares runs of one replicated model: checks, batch size, engine.

Guarantee: everything that can be wrong with the input is found before the engine is
asked for the first row.
"""

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy import heads, models
from keras_mgpu_strategy.batch_size import first_guess, per_replica
from keras_mgpu_strategy.engines.interface import Engine
from keras_mgpu_strategy.engines.mirrored import MirroredEngine
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.feed import example_inputs, row_bytes
from keras_mgpu_strategy.inputs import (
    as_source,
    check_batch_size,
    check_inputs,
    select_inputs,
)
from keras_mgpu_strategy.signatures import SpecMemory
from keras_mgpu_strategy.step import StepCompiler
from keras_mgpu_strategy.types import HostBatch, InputBatch, Nest, Source

_ENGINES: dict[str, Callable[..., Engine]] = {
    "mirrored": MirroredEngine,
    "threads": ThreadsEngine,
}


@dataclasses.dataclass(frozen=True)
class Options:
    """How a Predictor runs.

    Args:
        engine: `"threads"`: each device takes the next chunk when it is free.
            `"mirrored"`: all devices step together under `strategy.run`, fed by a
            distributed tf.data pipeline. Same results bit for bit.

    Raises:
        ValueError: An unknown engine.
    """

    engine: str = "threads"

    def __post_init__(self) -> None:
        """Checks the values."""
        if self.engine not in _ENGINES:
            raise ValueError(
                f"engine={self.engine!r}. Expected one of {sorted(_ENGINES)}."
            )


@dataclasses.dataclass(frozen=True)
class Job:
    """A run that has been checked and can begin.

    Args:
        source: The rows.
        engine: What runs them.
        batch_size: Per-replica batch.
        global_batch: Rows of a batch over all replicas.
    """

    source: Source
    engine: Engine
    batch_size: int
    global_batch: int

    def run(self, start: int = 0) -> Iterator[HostBatch]:
        """Yields results in input order, from row `start` on; at least one batch."""
        return self.engine.run(self.source, self.batch_size, start)


class Runner:
    """Makes the jobs of one replicated model; keeps what was compiled for it.

    Args:
        replicated: The model.
        options: How it runs.
    """

    def __init__(self, replicated: models.ReplicatedModel, options: Options):
        self._replicated = replicated
        self._options = options
        self._compiler = StepCompiler(replicated)
        self._specs = SpecMemory()

    def job(
        self, x: Any, batch_size: int | None, steps: int | None, head: heads.Head
    ) -> Job:
        """Checks the input against the model and chooses batch size and engine.

        Raises:
            TypeError: Inputs of a kind that cannot be read.
            ValueError: Inputs that do not fit the model, each other or `batch_size`.
        """
        check_batch_size(batch_size, x)
        source = self._with_spec(as_source(x, steps=steps, batch_size=batch_size))
        check_inputs(source.spec, self._replicated.input_spec)
        source = select_inputs(source, self._replicated.input_spec)
        models.build(self._replicated, example_inputs(source.spec, 1))
        per_replica_batch = self._per_replica_batch(batch_size, source)
        num_replicas = self._replicated.strategy.num_replicas_in_sync
        return Job(
            source,
            _ENGINES[self._options.engine](self._compiler, self._specs, head),
            per_replica_batch,
            batch_size or per_replica_batch * num_replicas,
        )

    def _with_spec(self, source: Source) -> Source:
        if source.spec is not None:
            return source
        if self._replicated.input_spec is None:
            raise ValueError(
                "The input has no batch at all, and the model does not declare its "
                "inputs, so the shape of the results is not known. Pass at least one "
                "batch, or arrays of shape (0, ...)."
            )
        return _NoRows(self._replicated.input_spec)

    def _per_replica_batch(self, batch_size: int | None, source: Source) -> int:
        num_replicas = self._replicated.strategy.num_replicas_in_sync
        fixed = _fixed_batch(self._replicated.input_spec)
        if batch_size is None:
            guess = first_guess(row_bytes(source.spec), source.num_rows, num_replicas)
            return fixed or guess
        wanted = per_replica(batch_size, num_replicas)
        if fixed not in (None, wanted):
            raise ValueError(
                f"batch_size={batch_size} gives {wanted} rows to each of "
                f"{num_replicas} replicas, but the model was built for batches of "
                f"exactly {fixed}. Pass batch_size={fixed * num_replicas} or None."
            )
        return wanted


def _fixed_batch(input_spec: Nest) -> int | None:
    """The batch axis that a model was built with, if not None."""
    if input_spec is None:
        return None
    sizes = [leaf.shape[0] for leaf in tf.nest.flatten(input_spec) if leaf.shape.rank]
    return next((size for size in sizes if size is not None), None)


@dataclasses.dataclass(frozen=True)
class _NoRows:
    """A source of no rows, as an empty generator is."""

    spec: Nest
    num_rows: int = 0

    def batches(self, batch_size: int, start: int = 0) -> Iterator[InputBatch]:
        return iter(())
