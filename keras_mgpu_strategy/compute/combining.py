"""How the outputs of several runs of a model, or of several models, become one.

Each run waits for what the earlier ones have added up to, so that the device holds the
activations of one at a time, and a mean holds two outputs however many runs there are.
XLA, which orders operations itself, does so to save memory.
"""

from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.types import Nest

Runs: TypeAlias = Sequence[Callable[[Sequence[tf.Tensor]], Nest]]
"""Each gives the outputs of one run, which begins after the tensors it is given."""


def combined(how: str, runs: Runs, of_one: Callable[[Nest], Nest]) -> Nest:
    """Returns what is combined of runs; `of_one` is applied to the outputs of each."""
    kind = _KINDS[how]
    parts: list[Any] = []
    before: list[tf.Tensor] = []
    first: Nest = None
    for run in runs:
        results = of_one(run(before))
        leaves = tf.nest.flatten(results)
        if not parts:
            first = results
            parts = [(kind if is_dense(x) else _Last)() for x in leaves]
        for part, leaf in zip(parts, leaves, strict=True):
            part.add(leaf)
        before = [tensor for part in parts for tensor in part.tensors]
    return tf.nest.pack_sequence_as(first, [part.result() for part in parts])


def is_dense(output: Any) -> bool:
    """Whether an output is a dense tensor."""
    return isinstance(output, tf.Tensor | tf.Variable)


class _Last:
    """What cannot be combined, for the error that names it."""

    tensors: Sequence[tf.Tensor] = ()

    def add(self, output: Any) -> None:
        self._output = output

    def result(self) -> Any:
        return self._output


class _Mean:
    """As `np.mean`: of integers and bools float64; half precision adds in float32."""

    name = "mean"

    def __init__(self) -> None:
        self.tensors: list[tf.Tensor] = []
        self._count = 0

    def add(self, output: tf.Tensor) -> None:
        self._dtype, wide = _narrow_and_wide(output.dtype, self.name)
        self._count += 1
        self._add(tf.cast(output, wide))

    def _add(self, value: tf.Tensor) -> None:
        self.tensors = [self.tensors[0] + value if self.tensors else value]

    def result(self) -> Nest:
        return tf.cast(self._mean(), self._dtype)

    def _mean(self) -> tf.Tensor:
        return self.tensors[0] / self._count


class _GeometricMeanOfLogs(_Mean):
    """exp(mean(logs)), not normalised."""

    name = "gmean"

    def _mean(self) -> tf.Tensor:
        return tf.exp(super()._mean())


class _GeometricMean(_GeometricMeanOfLogs):
    """exp(mean(log))."""

    def _add(self, value: tf.Tensor) -> None:
        super()._add(tf.math.log(value))


class _MeanAndDeviation(_Mean):
    """The mean, and the deviation of the population as `np.std`.

    The sum of squared deviations is updated as by Youngs and Cramer: differences of
    large squares would lose all digits.
    """

    name = "mean_std"

    def _add(self, value: tf.Tensor) -> None:
        if not self.tensors:
            self.tensors = [value, tf.zeros_like(value)]
            return
        total, squares = self.tensors
        total, n = total + value, self._count
        step = tf.square(n * value - total) / (n * (n - 1))
        self.tensors = [total, squares + step]

    def result(self) -> Nest:
        deviation = tf.sqrt(self.tensors[1] / self._count)
        return {"mean": super().result(), "std": tf.cast(deviation, self._dtype)}


class _Stack:
    """All outputs, along a new axis 1."""

    def __init__(self) -> None:
        self.tensors: list[tf.Tensor] = []

    def add(self, output: tf.Tensor) -> None:
        self.tensors.append(output)

    def result(self) -> tf.Tensor:
        # An output without a batch axis is found later, and named.
        has_rows = bool(self.tensors[0].shape.rank)
        return tf.stack(self.tensors, 1) if has_rows else self.tensors[0]


class _Vote(_Stack):
    """The most frequent of class ids; of equally frequent ones, the lowest."""

    def result(self) -> tf.Tensor:
        ids = tf.stack(self.tensors)
        votes = [
            tf.reduce_sum(tf.cast(ids == mine, tf.int32), 0) for mine in self.tensors
        ]
        counts = tf.stack(votes)
        is_best = counts == tf.reduce_max(counts, 0, keepdims=True)
        return tf.reduce_min(tf.where(is_best, ids, ids.dtype.max), 0)


_KINDS: dict[str, Callable[[], Any]] = {
    "mean": _Mean,
    "gmean": _GeometricMean,
    "gmean of logs": _GeometricMeanOfLogs,
    "mean_std": _MeanAndDeviation,
    "stack": _Stack,
    "vote": _Vote,
}


def _narrow_and_wide(dtype: tf.DType, how: str) -> tuple[tf.DType, tf.DType]:
    """The dtype of results, and the one in which they are computed."""
    if dtype.is_floating:
        return dtype, tf.float32 if dtype.size < tf.float32.size else dtype
    if dtype.is_integer or dtype.is_bool:
        return tf.float64, tf.float64
    raise ValueError(
        f"combine={how!r} got outputs of dtype {dtype.name}, expected real numbers. "
        'Pass combine="stack", which keeps the outputs of every model, or leave this '
        "output out."
    )
