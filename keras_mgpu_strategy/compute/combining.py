"""How the outputs of several runs of a model, or of several models, become one.

Each run waits for what the earlier ones have added up to, so that the device holds the
activations of one at a time, and a mean holds two outputs however many runs there are.
XLA, which orders operations itself, does so to save memory.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.types import Nest

Runs: TypeAlias = Sequence[Callable[[Sequence[tf.Tensor]], Nest]]
"""Each gives the outputs of one run, which begins after the tensors it is given."""

_Sums: TypeAlias = list[tf.Tensor]
"""What the runs so far add up to, for one of the outputs."""


def combined(how: str, runs: Runs, of_one: Callable[[Nest], Nest]) -> Nest:
    """Returns what is combined of runs; `of_one` is applied to the outputs of each."""
    add, finish = _KINDS[how]
    all_sums: list[_Sums] = []
    first: Nest = None
    leaves: list[Any] = []
    for count, run in enumerate(runs, 1):
        results = of_one(run([*itertools.chain(*all_sums)]))
        leaves = tf.nest.flatten(results)
        if count == 1:
            first, all_sums = results, [[] for _ in leaves]
        all_sums = [
            add(sums, _widened(leaf, how), count) if is_dense(leaf) else []
            for sums, leaf in zip(all_sums, leaves, strict=True)
        ]

    def finished(sums: _Sums, leaf: Any) -> Nest:
        if not is_dense(leaf):
            return leaf  # for the error that names it
        result = finish(sums, len(runs))
        if how in _KEEPING:
            return result
        dtype = leaf.dtype if leaf.dtype.is_floating else tf.float64
        return tf.nest.map_structure(lambda each: tf.cast(each, dtype), result)

    return tf.nest.pack_sequence_as(first, list(map(finished, all_sums, leaves)))


def is_dense(output: Any) -> bool:
    """Whether an output is a dense tensor."""
    return isinstance(output, tf.Tensor | tf.Variable)


def _widened(output: tf.Tensor, how: str) -> tf.Tensor:
    """As in `np.mean`: of integers and bools float64; of half precision float32."""
    dtype = output.dtype
    if how in _KEEPING:
        return output
    if dtype.is_floating:
        return tf.cast(output, tf.float32 if dtype.size < 4 else dtype)
    if dtype.is_integer or dtype.is_bool:
        return tf.cast(output, tf.float64)
    raise ValueError(
        f"combine={how.split()[0]!r} got outputs of dtype {dtype.name}, expected real "
        'numbers. Pass combine="stack", which keeps the outputs of every model, or '
        "leave this output out."
    )


def _added(sums: _Sums, value: tf.Tensor, _: int) -> _Sums:
    return [sums[0] + value if sums else value]


def _logs_added(sums: _Sums, value: tf.Tensor, count: int) -> _Sums:
    return _added(sums, tf.math.log(value), count)


def _squares_added(sums: _Sums, value: tf.Tensor, count: int) -> _Sums:
    """As by Youngs and Cramer: differences of large squares would lose all digits."""
    if not sums:
        return [value, tf.zeros_like(value)]
    total = sums[0] + value
    step = tf.square(count * value - total) / (count * (count - 1))
    return [total, sums[1] + step]


def _kept(outputs: _Sums, value: tf.Tensor, _: int) -> _Sums:
    return [*outputs, value]


def _mean(sums: _Sums, count: int) -> tf.Tensor:
    return sums[0] / count


def _mean_of_logs(sums: _Sums, count: int) -> tf.Tensor:
    return tf.exp(sums[0] / count)  # not normalised


def _mean_and_deviation(sums: _Sums, count: int) -> Nest:
    return {"mean": sums[0] / count, "std": tf.sqrt(sums[1] / count)}  # as `np.std`


def _stacked(outputs: _Sums, _: int) -> tf.Tensor:
    # An output without a batch axis is found later, and named.
    return tf.stack(outputs, 1) if outputs[0].shape.rank else outputs[0]


def _most_frequent(outputs: _Sums, _: int) -> tf.Tensor:
    """Of class ids; of equally frequent ones, the lowest."""
    ids = tf.stack(outputs)
    votes = [tf.reduce_sum(tf.cast(ids == mine, tf.int32), 0) for mine in outputs]
    counts = tf.stack(votes)
    is_best = counts == tf.reduce_max(counts, 0, keepdims=True)
    return tf.reduce_min(tf.where(is_best, ids, ids.dtype.max), 0)


# What is made of each output, with those before it, and what of all of them.
_KINDS: dict[str, tuple[Callable[..., _Sums], Callable[..., Nest]]] = {
    "mean": (_added, _mean),
    "gmean": (_logs_added, _mean_of_logs),
    "gmean of logs": (_added, _mean_of_logs),
    "mean_std": (_squares_added, _mean_and_deviation),
    "stack": (_kept, _stacked),
    "vote": (_kept, _most_frequent),
}
_KEEPING = ("stack", "vote")  # outputs as they are
