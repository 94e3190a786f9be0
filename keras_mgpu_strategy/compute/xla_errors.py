"""Steps that XLA compiles, and what happens to those that it cannot compile."""

import re
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.types import Nest

_ERRORS = (tf.errors.InvalidArgumentError, tf.errors.UnimplementedError)
_REASON = re.compile("XLA|tf2xla|compile")


def run_by_xla(
    step: Callable[..., Nest], instead: Callable[[], Callable[..., Nest]] | None
) -> Callable[..., Nest]:
    """A step that XLA compiles when it first runs.

    Args:
        step: The step.
        instead: Makes a step to run if XLA cannot compile this one; None if that is an
            error, which then says what the user can do.
    """

    def run(*chunk: Any) -> Nest:
        try:
            return step(*chunk)
        except _ERRORS as error:
            reason = _reason(error)
            if reason is None:
                raise
            if instead is None:
                raise ValueError(
                    f"XLA cannot compile the model: {reason}\nPass jit_compile=False."
                ) from error
        return instead()(*chunk)

    return run


def _reason(error: Exception) -> str | None:
    lines = str(error).splitlines()
    return next((line[:400] for line in lines if _REASON.search(line)), None)
