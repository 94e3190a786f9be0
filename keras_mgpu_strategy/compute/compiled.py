"""Compiled steps, as engines call them.

A step that draws random numbers runs in one thread at a time, since it sets the
stand-ins for its seeds before each micro-batch.
"""

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.models import nodes_of
from keras_mgpu_strategy.types import Nest

ReplicaStep: TypeAlias = Callable[..., Nest]
"""Takes the flat tensors of a chunk and returns the nest of its outputs."""


class CannotCompileError(ValueError):
    """A model cannot be compiled in the way that was asked for."""


_XLA_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
_XLA_REASON = re.compile("XLA|tf2xla|compile")


class CompiledStep:
    """A compiled function of run, first row and flat tensors, on one or all replicas.

    `draws` replaces the seeds; kept, since a graph does not keep its variables alive.
    `device` is where it runs and expects tensors; empty for a step of all replicas.
    """

    def __init__(
        self, function: Callable[..., Nest], draws: Sequence[Any], device: str = ""
    ):
        self.function = function
        self.device = device
        self._graph: Any = getattr(function, "graph", None)  # None of all replicas
        self._draws = draws
        self._lock = threading.Lock() if any(draws) else contextlib.nullcontext()

    def __call__(self, *arguments: Any) -> Nest:
        """Runs the function."""
        with self._lock:
            return self.function(*arguments)

    @functools.cached_property
    def num_ops(self) -> int:
        """Ops of the graph and the functions that it calls; 0 if unknown."""
        try:
            return len(nodes_of(self._graph.as_graph_def())) if self._graph else 0
        except ValueError:  # more than 2 GB of constants
            return 0

    def at(self, run: int, row: int) -> ReplicaStep:
        """The function of the flat tensors of a chunk alone."""
        if not any(self._draws):
            return self._drawing_nothing
        return functools.partial(self, scalar(run), scalar(row))

    @functools.cached_property
    def _drawing_nothing(self) -> ReplicaStep:
        return functools.partial(self, scalar(0), scalar(0))


def scalar(number: int) -> tf.Tensor:
    """The number of a run or a row, on the host."""
    with tf.device("CPU:0"):
        return tf.constant(number, tf.int64)


def run_by_xla(
    step: Callable[..., Nest], instead: Callable[[], Callable[..., Nest]] | None
) -> Callable[..., Nest]:
    """A step that XLA compiles when it first runs, or else the step of `instead`."""

    def run(*chunk: Any) -> Nest:
        try:
            return step(*chunk)
        except _XLA_ERRORS as error:
            lines = filter(_XLA_REASON.search, str(error).splitlines())
            if (reason := next(lines, None)) is None:
                raise
            if instead is None:
                raise CannotCompileError(
                    f"XLA cannot compile the model: {reason[:400]}\n"
                    'Pass compile="plain".'
                ) from error
        return instead()(*chunk)

    return run
