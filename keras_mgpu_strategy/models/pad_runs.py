"""Runs of rows of different lengths on one device, to see what depends on them."""

import dataclasses
import itertools
from collections.abc import Iterator, Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.libraries import is_library_class, layers_of
from keras_mgpu_strategy.models.pad_difference import difference_of
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.stand_ins import Draws
from keras_mgpu_strategy.types import Nest, has_free_length, of_length

_NUM_ROWS = 4

_Leaves: TypeAlias = Sequence[Any]


class Results(Protocol):
    """What a method makes of outputs, as `compute.heads.Head` does."""

    @property
    def plain(self) -> "Results":
        """What gives the outputs themselves; of several models along a new axis 1."""
        ...

    @property
    def along_last_axis(self) -> str | None:
        """The method, if it mixes the values along the last axis of an output."""
        ...

    def __call__(self, outputs: Nest) -> Nest:
        """The results."""
        ...


@dataclasses.dataclass(frozen=True)
class Ran:
    """Rows of one length; `is_a_row` unless they are zeros, tried for their shapes."""

    length: int
    outputs: list[np.ndarray]
    shapes: list[tuple[int, ...]]  # of results
    is_a_row: bool = True


class PadRuns:
    """Runs of a model and what a method makes of its outputs."""

    def __init__(self, replicated: ReplicatedModel, head: Results, spec: Nest) -> None:
        self._replicated, self._head, self._spec = replicated, head, spec
        leaves = tf.nest.flatten(spec)
        declared = filter(None, tf.nest.flatten(replicated.input_spec))
        fixed = [leaf.shape[0] for leaf in declared if leaf.shape.rank]
        self._num_rows = next(filter(None, fixed), _NUM_ROWS)
        self._specs = [
            tf.TensorSpec([self._num_rows, *x.shape[1:]], x.dtype) for x in leaves
        ]
        self._varying = [has_free_length(leaf.shape) for leaf in leaves]
        self._device = replicated.strategy.extended.worker_devices[0]
        self._steps: dict[int | None, Any] = {}
        self.is_static = self.draws = False

    @property
    def result_specs(self) -> list[Any]:
        """Flat specs of the results, as they were traced first."""
        return next(iter(self._steps.values())).structured_outputs[1]

    def run_first(self, rows: _Leaves) -> Ran:
        """Runs rows, and finds whether the model has to know their length."""
        if not any(self._varying) or not _may_need_length(self._replicated):
            return self.run(rows)
        try:
            found: Ran | None = self.run(rows)
        except Exception:  # noqa: BLE001 - what is wrong otherwise is raised below
            found = None
        self.is_static = True
        static = self.run(rows)
        if found is None or found.shapes != static.shapes:
            return static
        self.is_static = False
        if not self.draws and difference_between(
            self._replicated, static, found, "right"
        ):
            self.is_static = True
        return static

    def run(self, rows: _Leaves, *, is_a_row: bool = True) -> Ran:
        """Runs rows, repeated up to the batch that is tried."""
        each = np.arange(self._num_rows) % len(rows[0])
        lengths = [x.shape[1] for x, v in zip(rows, self._varying, strict=True) if v]
        length = next(iter(lengths), 0)
        step = self._step(length if self.is_static else None)
        with tf.device(self._device):
            outputs, results = step(*[tf.constant(leaf[each]) for leaf in rows])
        shapes = [tuple(leaf.shape) for leaf in results]
        arrays = [np.asarray(leaf) for leaf in outputs]
        return Ran(length, arrays, shapes, is_a_row)

    def _step(self, length: int | None) -> Any:
        """The model and the head, traced for rows of a length; None for any."""
        if length in self._steps:
            return self._steps[length]
        replicated, head = self._replicated, self._head

        def forward(*flat: tf.Tensor) -> tuple[_Leaves, _Leaves]:
            outputs = replicated.call(replicated.in_form(self._spec, flat))
            results = head.plain(outputs), head(outputs)
            return tf.nest.flatten(results[0]), tf.nest.flatten(results[1])

        pairs = zip(self._specs, self._varying, strict=True)
        specs = [of_length(spec, length) if v else spec for spec, v in pairs]
        function = tf.function(forward, autograph=replicated.autograph)
        with replicated.strategy.scope(), tf.device(self._device):
            step: Any = function.get_concrete_function(*specs)
        # Also leaves the model's own seeds as they are.
        self.draws |= bool(Draws(step, replicated.all_variables(), {}))
        return self._steps.setdefault(length, step)

    def run_other(self, rows: _Leaves, length: int, long: Ran, side: str) -> Ran | None:
        """Runs the first row alone, or zeros of another length; None if neither can."""
        if not any(self._varying):
            return None
        lengths = [long.length // 2, long.length - 1, 2 * long.length, long.length + 1]
        alone = self._alone(rows, 0, length, long, side)
        found = filter(None, itertools.chain([alone], map(self.zeros, lengths)))
        first = next(found, None)
        # oneDNN's convolutions give too few tokens another shape, where others fail.
        if first is None or is_alike(first, long):
            return first
        return next((ran for ran in found if is_alike(ran, long)), first)

    def run_further(
        self, rows: _Leaves, lengths: Sequence[int], long: Ran, side: str
    ) -> Iterator[tuple[int, Ran]]:
        """Runs rows alone, from row 1 on; yields those that can be."""
        for row, length in enumerate(lengths[1 : self._num_rows], 1):
            ran = self._alone(rows, row, length, long, side)
            if ran is not None and is_alike(ran, long):
                yield row, ran

    def _alone(
        self, rows: _Leaves, row: int, length: int, long: Ran, side: str
    ) -> Ran | None:
        """Runs a row without its padding; None if it has none, or cannot be run."""
        if length == long.length:
            return None
        own = slice(0, length) if side == "right" else slice(-length, None)
        pairs = zip(rows, self._varying, strict=True)
        try:
            return self.run(
                [x[row : row + 1, own] if v else x[row : row + 1] for x, v in pairs]
            )
        except Exception:  # noqa: BLE001 - such as too few tokens for a kernel
            return None

    def zeros(self, length: int) -> Ran | None:
        """Runs zeros, for their shapes; None if there cannot be so few or many."""
        pairs = zip(self._specs, self._varying, strict=True)
        rows = [_zeros(of_length(spec, length) if v else spec) for spec, v in pairs]
        try:
            return self.run(rows, is_a_row=False) if length > 0 else None
        except Exception:  # noqa: BLE001 - such as more tokens than positions
            return None


def _zeros(spec: tf.TensorSpec) -> np.ndarray:
    shape = [1 if axis is None else axis for axis in spec.shape]
    dtype = "S1" if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
    return np.zeros(shape, dtype)


def is_alike(one: Ran, other: Ran) -> bool:
    """Whether shapes of results differ at most in numbers of tokens."""
    pairs = zip(one.shapes, other.shapes, strict=True)
    return all((a[:1], a[2:]) == (b[:1], b[2:]) for a, b in pairs)


def _may_need_length(replicated: ReplicatedModel) -> bool:
    """Whether a model has layers that may take an unknown length for another one.

    TimeDistributed of Keras 3.15 does; code of the user's own may look at shapes.
    """
    members = [each for each in replicated.each if each.folder is None]
    kinds = {type(layer) for each in members for layer in layers_of(each.model)}
    return any(
        x.__name__ == "TimeDistributed" or not is_library_class(x) for x in kinds
    )


def difference_between(
    replicated: ReplicatedModel, short: Ran, long: Ran, side: str, row: int = 0
) -> str | None:
    """Says by how much a row of `long` differs from one alone; None if by rounding."""
    pairs = zip(short.outputs, long.outputs, strict=True)
    for index, (one, other) in enumerate(pairs):
        found = difference_of(replicated, one[0], other[row], side)
        if found is not None:
            name = f"output {index}" if len(short.outputs) > 1 else "its output"
            return f"{name} for a row of {short.length} tokens differs{found}"
    return None
