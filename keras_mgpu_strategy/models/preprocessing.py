"""The preprocessing that a task applies to rows: on the host, as a graph.

Guarantees:

* Rows are preprocessed as by `tf.data.Dataset.map` in the task's own `predict`: by the
  same function, traced with AutoGraph, on the CPU.
* Any number of threads may preprocess at once.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import as_given, without_none, x_of
from keras_mgpu_strategy.system.causes import cause_of
from keras_mgpu_strategy.types import Nest


class Preprocessing:
    """The preprocessing of a task, traced for rows of one kind.

    Args:
        name: Name of the task, for messages.
        function: Takes x, or x, targets and weights.
        raw_spec: Nest of `tf.TensorSpec` of what the function is given: x, or a tuple
            of x and more.
        is_whole: Whether the model is given all that the function returns, not x
            alone.

    Attributes:
        spec: Nest of `tf.TensorSpec` of what the model is given.

    Raises:
        ValueError: If the function cannot be traced on such rows, or does not return
            dense tensors with a known number of axes.
    """

    def __init__(
        self,
        name: str,
        function: Callable[..., Nest],
        raw_spec: Nest,
        *,
        is_whole: bool,
    ):
        self._name = name
        self._raw_spec = raw_spec
        self._is_whole = is_whole
        try:
            self._traced = _trace(function, _arguments(raw_spec))
        # User code runs here and may raise anything.
        except Exception as error:
            raise ValueError(
                f"The preprocessing of {name} fails on {_shown(raw_spec)}: "
                f"{cause_of(error)}\nPass rows that its `predict` takes: texts as an "
                "array or list of str, files as one of `mgpu.files`; or set "
                "`preprocessor = None` before the model is handed over, and pass rows "
                "that are preprocessed already."
            ) from error
        given = self._given(self._traced.structured_outputs)
        self.spec: Nest = tf.nest.map_structure(self._checked, given)

    def __call__(self, inputs: Nest) -> Nest:
        """Preprocesses a batch.

        Args:
            inputs: Nest of NumPy arrays of shape `(num_rows, ...)`.

        Returns:
            Nest of NumPy arrays of shape `(num_rows, ...)`, as `spec` says.

        Raises:
            ValueError: If the result has a different number of rows.
        """
        with tf.device("CPU:0"):
            tensors = tf.nest.map_structure(tf.convert_to_tensor, inputs)
            outputs = self._given(self._traced(*_arguments(tensors)))
        num_rows = len(tf.nest.flatten(inputs)[0])

        def rows(leaf: tf.Tensor) -> np.ndarray:
            array = np.asarray(leaf)
            if array.shape[:1] != (num_rows,):
                raise ValueError(
                    f"The preprocessing of {self._name} gave an array of shape "
                    f"{array.shape} for {num_rows} rows, expected ({num_rows}, ...)."
                )
            return array

        return tf.nest.map_structure(rows, outputs)

    def _given(self, outputs: Nest) -> Nest:
        return without_none(outputs if self._is_whole else x_of(outputs))

    def _checked(self, leaf: Any) -> tf.TensorSpec:
        is_tensor = isinstance(leaf, tf.Tensor | tf.TensorSpec)
        if not is_tensor or not leaf.shape.rank:
            shape = getattr(leaf, "shape", None)
            raise ValueError(
                f"The preprocessing of {self._name} returns a {type(leaf).__name__} of "
                f"shape {shape}, expected dense tensors with a row for each row. Let "
                "it pad its rows to one length."
            )
        return tf.TensorSpec([None, *leaf.shape[1:]], leaf.dtype)


def _trace(function: Callable[..., Nest], arguments: tuple[Nest, ...]) -> Any:
    def run(*arguments: Nest) -> Nest:
        return function(*as_given(arguments))

    with tf.device("CPU:0"):
        return tf.function(run).get_concrete_function(*arguments)


def _arguments(data: Nest) -> tuple[Nest, ...]:
    return data if isinstance(data, tuple) else (data,)


def _shown(spec: Nest) -> str:
    leaves = tf.nest.flatten(spec)
    return ", ".join(
        f"{leaf.dtype.name} of shape {tuple(leaf.shape)}" for leaf in leaves
    )
