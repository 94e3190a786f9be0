"""Runs of rows of different lengths on one device, to see what depends on them."""

import dataclasses
import itertools
from collections.abc import Sequence
from typing import Any, Protocol, TypeAlias

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.agreement import is_coarse
from keras_mgpu_strategy.models.libraries import is_library_class, layers_of
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.stand_ins import Draws
from keras_mgpu_strategy.types import Nest, has_free_length, of_length

_NUM_ROWS = 4
_EXACT, _TENSOR_FLOAT, _HALF = 1e-5, 5e-3, 5e-2
"""Differences that may be rounding, relative to the largest value of an output."""

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
    """Runs `padded` rows first, as `long`; then each of them alone, or zeros.

    `is_static` if the model has to be traced for each length, `draws` if it draws
    random numbers.
    """

    def __init__(
        self,
        replicated: ReplicatedModel,
        head: Results,
        spec: Nest,
        padded: Nest,
        side: str,
    ) -> None:
        self._replicated, self._head, self._spec = replicated, head, spec
        self._rows, self._side = tf.nest.flatten(padded), side
        declared = filter(None, tf.nest.flatten(replicated.input_spec))
        fixed = [leaf.shape[0] for leaf in declared if leaf.shape.rank]
        self.num_rows = next(filter(None, fixed), _NUM_ROWS)
        self._specs = [
            tf.TensorSpec([self.num_rows, *leaf.shape[1:]], leaf.dtype)
            for leaf in tf.nest.flatten(spec)
        ]
        self._varying = [has_free_length(leaf.shape) for leaf in self._specs]
        varying = itertools.compress(self._rows, self._varying)
        self._longest = next((rows.shape[1] for rows in varying), 0)
        self._device = replicated.strategy.extended.worker_devices[0]
        self._steps: dict[int | None, Any] = {}
        self.is_static = self.draws = False
        self.long = self._run_first()

    @property
    def result_specs(self) -> list[Any]:
        """Flat specs of the results, as they were traced first."""
        return next(iter(self._steps.values())).structured_outputs[1]

    def again(self) -> Ran:
        """Runs the padded rows."""
        return self._run(self._rows, self._longest)

    def _run_first(self) -> Ran:
        """Runs the padded rows, and finds whether the model must know their length."""
        if not any(self._varying) or not _may_need_length(self._replicated):
            return self.again()
        found = self._tried(self._rows, self._longest)
        self.is_static = True
        static = self.again()
        if found is not None and found.shapes == static.shapes:
            self.is_static = not self.draws and bool(self.difference(static, found))
        return static

    def other(self, length: int) -> Ran | None:
        """Runs the first row alone, or zeros of another length; None if neither can."""
        if not any(self._varying):
            return None
        longest = self._longest
        others = map(self.zeros, [longest // 2, longest - 1, 2 * longest, longest + 1])
        found = filter(None, itertools.chain([self.alone(0, length)], others))
        first = next(found, None)
        # oneDNN's convolutions give too few tokens another shape, where others fail.
        if first is None or self.is_alike(first):
            return first
        return next(filter(self.is_alike, found), first)

    def alone(self, row: int, length: int) -> Ran | None:
        """Runs a row without its padding; None if it has none, or cannot be run."""
        own = slice(0, length) if self._side == "right" else slice(-length, None)
        rows = [
            leaf[row : row + 1, own] if varies else leaf[row : row + 1]
            for leaf, varies in zip(self._rows, self._varying, strict=True)
        ]
        return None if length == self._longest else self._tried(rows, length)

    def zeros(self, length: int) -> Ran | None:
        """Runs zeros, for their shapes; None if there cannot be so few or many."""
        rows = map(_zeros, self._specs_of(length))
        return self._tried([*rows], length, is_a_row=False) if length > 0 else None

    def is_alike(self, ran: Ran) -> bool:
        """Whether shapes of results differ from those first run in tokens at most."""
        pairs = zip(ran.shapes, self.long.shapes, strict=True)
        return all((a[:1], a[2:]) == (b[:1], b[2:]) for a, b in pairs)

    def difference(self, alone: Ran, padded: Ran, row: int = 0) -> str | None:
        """Says by how much a row differs from the first alone; None if by rounding."""
        pairs = zip(alone.outputs, padded.outputs, strict=True)
        for index, (one, other) in enumerate(pairs):
            found = self._difference(one[0], other[row])
            if found is not None:
                name = f"output {index}" if len(alone.outputs) > 1 else "its output"
                return f"{name} for a row of {alone.length} tokens differs{found}"
        return None

    def _difference(self, alone: np.ndarray, padded: np.ndarray) -> str | None:
        sizes = zip(padded.shape, alone.shape, strict=True)
        first = [0 if self._side == "right" else max(n - own, 0) for n, own in sizes]
        pairs = zip(first, alone.shape, strict=True)
        own = padded[tuple(slice(start, start + size) for start, size in pairs)]
        if alone.dtype.kind not in "biufcV":
            return None if np.array_equal(alone, own) else ""
        bound = _bound(self._replicated, alone.dtype)
        one, other = _wide(alone), _wide(own)
        scale = np.abs(one[np.isfinite(one)]).max(initial=0.0)
        if np.allclose(one, other, 0, bound * scale, equal_nan=True):
            return None
        return f" by up to {np.nanmax(np.abs(one - other), initial=0.0):.2g}"

    def _tried(
        self, rows: _Leaves, length: int, *, is_a_row: bool = True
    ) -> Ran | None:
        try:
            return self._run(rows, length, is_a_row=is_a_row)
        except Exception:  # noqa: BLE001 - too few tokens for a kernel, or too many
            return None

    def _run(self, rows: _Leaves, length: int, *, is_a_row: bool = True) -> Ran:
        """Runs rows, repeated up to the batch that is tried."""
        each = np.arange(self.num_rows) % len(rows[0])
        step = self._step(length if self.is_static else None)
        with tf.device(self._device):
            outputs, results = step(*[tf.constant(leaf[each]) for leaf in rows])
        shapes = [tuple(leaf.shape) for leaf in results]
        return Ran(length, [*map(np.asarray, outputs)], shapes, is_a_row)

    def _step(self, length: int | None) -> Any:
        """The model and the head, traced for rows of a length; None for any."""
        if length in self._steps:
            return self._steps[length]
        replicated, head = self._replicated, self._head

        def forward(*flat: tf.Tensor) -> tuple[_Leaves, _Leaves]:
            outputs = replicated.call(replicated.in_form(self._spec, flat))
            results = head.plain(outputs), head(outputs)
            return tf.nest.flatten(results[0]), tf.nest.flatten(results[1])

        function = tf.function(forward, autograph=replicated.autograph)
        with replicated.strategy.scope(), tf.device(self._device):
            step: Any = function.get_concrete_function(*self._specs_of(length))
        # Also leaves the model's own seeds as they are.
        self.draws |= bool(Draws(step, replicated.all_variables(), {}))
        return self._steps.setdefault(length, step)

    def _specs_of(self, length: int | None) -> list[tf.TensorSpec]:
        pairs = zip(self._specs, self._varying, strict=True)
        return [of_length(x, length) if varies else x for x, varies in pairs]


def _zeros(spec: tf.TensorSpec) -> np.ndarray:
    shape = [1 if axis is None else axis for axis in spec.shape]
    dtype = "S1" if spec.dtype == tf.string else spec.dtype.as_numpy_dtype
    return np.zeros(shape, dtype)


def _may_need_length(replicated: ReplicatedModel) -> bool:
    """Whether a model has layers that may take an unknown length for another one.

    TimeDistributed of Keras 3.15 does; code of the user's own may look at shapes.
    """
    kinds = {type(layer) for layer in _layers(replicated)}
    return any(
        x.__name__ == "TimeDistributed" or not is_library_class(x) for x in kinds
    )


def _layers(replicated: ReplicatedModel) -> list[Any]:
    members = [each for each in replicated.each if each.folder is None]
    return [layer for each in members for layer in layers_of(each.model)]


def _bound(replicated: ReplicatedModel, dtype: np.dtype) -> float:
    """What rounding may change: GPUs multiply float32 with fewer digits by default."""
    if dtype.itemsize < 4 or any(map(is_coarse, _layers(replicated))):
        return _HALF
    kind = tf.DeviceSpec.from_string(replicated.strategy.extended.worker_devices[0])
    is_reduced = tf.config.experimental.tensor_float_32_execution_enabled()
    return _TENSOR_FLOAT if is_reduced and kind.device_type != "CPU" else _EXACT


def _wide(array: np.ndarray) -> np.ndarray:
    return array if array.dtype.kind == "c" else array.astype(np.float64)
