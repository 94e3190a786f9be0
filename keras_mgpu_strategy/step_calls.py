"""Compiled steps, as engines call them.

Guarantees:

* A step that draws random numbers runs in one thread at a time, since it sets the seeds
  of its stand-ins before each micro-batch.
* What XLA's compiler says of a model comes with what the user can do.
"""

import contextlib
import functools
import re
import threading
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.types import Nest

_XLA_REASON = re.compile("XLA|tf2xla|compile")

ReplicaStep: TypeAlias = Callable[..., Nest]
"""Takes the flat tensors of a chunk and returns the nest of its outputs."""


class Position(NamedTuple):
    """Which rows a step runs, for random numbers of their own.

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
        draws: What stands in for the seeds of random layers; kept, since a graph does
            not keep its variables.
        has_xla: Whether XLA compiles the model.
    """

    def __init__(
        self, function: Callable[..., Nest], draws: Sequence[Any], *, has_xla: bool
    ):
        self._function = _explained(function) if has_xla else function
        self._draws = draws
        self._plain: ReplicaStep | None = None
        self._lock = threading.Lock() if any(draws) else contextlib.nullcontext()

    def __call__(self, *arguments: Any) -> Nest:
        """Runs the function."""
        with self._lock:
            return self._function(*arguments)

    def at(self, position: Position) -> ReplicaStep:
        """The function of the flat tensors of a chunk alone."""
        if any(self._draws):
            return functools.partial(self, *map(_scalar, position))
        self._plain = self._plain or functools.partial(self, *_zeros())
        return self._plain


def _explained(function: Callable[..., Nest]) -> Callable[..., Nest]:
    """Says in an error of XLA's compiler what the user can do."""

    def run(*arguments: Any) -> Nest:
        try:
            return function(*arguments)
        except (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError) as error:
            lines = str(error).splitlines()
            reason = next((line for line in lines if _XLA_REASON.search(line)), None)
            if reason is None:
                raise
            raise ValueError(
                f"XLA cannot compile the model: {reason[:400]}\nPass jit_compile=False."
            ) from error

    return run


def _scalar(number: int) -> tf.Tensor:
    with tf.device("CPU:0"):
        return tf.constant(number, tf.int64)


@functools.cache
def _zeros() -> tuple[tf.Tensor, tf.Tensor]:
    return _scalar(0), _scalar(0)
