"""Compiled steps, as engines call them.

Guarantees:

* A step that draws random numbers runs in one thread at a time, since it sets the
  stand-ins for its seeds before each micro-batch.
"""

import contextlib
import functools
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.types import Nest

ReplicaStep: TypeAlias = Callable[..., Nest]
"""Takes the flat tensors of a chunk and returns the nest of its outputs."""


class Position(NamedTuple):
    """Which rows a step runs, so that they get random numbers of their own.

    Args:
        run: Number of the run.
        row: Index of the first row of the chunk in the user's input.
    """

    run: int = 0
    row: int = 0

    @staticmethod
    def specs() -> list[tf.TensorSpec]:
        """The first arguments of every compiled step."""
        return [tf.TensorSpec([], tf.int64), tf.TensorSpec([], tf.int64)]


FIRST = Position()


class CompiledStep:
    """A compiled function of one replica, or of all of them together.

    Args:
        function: Takes run and row as scalars, then the flat tensors of a chunk.
        draws: What replaces the seeds of random layers; kept, since a graph does not
            keep its variables alive.
    """

    def __init__(self, function: Callable[..., Nest], draws: Sequence[Any]):
        self.function = function
        self._draws = draws
        self._plain: ReplicaStep | None = None
        self._lock = threading.Lock() if any(draws) else contextlib.nullcontext()

    def __call__(self, *arguments: Any) -> Nest:
        """Runs the function."""
        with self._lock:
            return self.function(*arguments)

    def at(self, position: Position) -> ReplicaStep:
        """The function of the flat tensors of a chunk alone."""
        if any(self._draws):
            return functools.partial(self, *map(_scalar, position))
        self._plain = self._plain or functools.partial(self, *_zeros())
        return self._plain


def _scalar(number: int) -> tf.Tensor:
    with tf.device("CPU:0"):
        return tf.constant(number, tf.int64)


@functools.cache
def _zeros() -> tuple[tf.Tensor, tf.Tensor]:
    return _scalar(0), _scalar(0)
