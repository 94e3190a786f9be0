"""Keeps the variables of a copy at the values of its original, at little cost.

Values are compared bit by bit where they live, in one call, and only those that differ
are written, since writing one takes as long as comparing dozens.
"""

import itertools
import operator
from collections.abc import Iterable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.stand_ins import stand_in_for
from keras_mgpu_strategy.models.state import assign_all, copy_flags, variables_in_order
from keras_mgpu_strategy.models.variables import MEAN, SUM, combined_by, copies_of

_BITCAST = frozenset(
    {tf.bfloat16, tf.float16, tf.float32, tf.float64, tf.complex64}
    | {tf.int8, tf.int16, tf.int32, tf.int64}
    | {tf.uint8, tf.uint16, tf.uint32, tf.uint64}
)


class Follower:
    """Brings a copy of a model up to date; keeps a comparison of its variables."""

    def __init__(self) -> None:
        self._comparison: _Comparison | None = None

    def follow(self, source: Any, target: Any) -> None:
        """Gives a copy the flags and the values of all variables of its original."""
        copy_flags(source, target)
        both = variables_in_order(source), variables_in_order(target)
        if self._comparison is None or not self._comparison.is_of(*both):
            self._comparison = _Comparison(*both)
        differ = self._comparison.differ()
        assign_all(*(list(itertools.compress(variables, differ)) for variables in both))


class Snapshot:
    """Values that variables had, kept where these live, for a later look."""

    def __init__(self, variables: Iterable[tf.Variable]):
        self._variables = list(variables)
        self._kept = list(map(stand_in_for, self._variables))
        self._comparison = _Comparison(self._kept, self._variables)
        self.renew()

    def renew(self) -> bool:
        """Takes the values of now; returns whether any are others."""
        differ = self._comparison.differ()
        pairs = zip(self._kept, self._variables, strict=True)
        for kept, variable in itertools.compress(pairs, differ):
            kept.assign(variable)
        return any(differ)


class _Comparison:
    """A compiled comparison of variables, which tells those that differ."""

    def __init__(self, sources: list[Any], targets: list[Any]):
        self._both = sources, targets
        compared = list(map(_are_comparable, sources, targets))
        self._always = {i for i, one in enumerate(compared) if not one}
        self._copies: dict[str, list[tuple[int, Any]]] = {}
        for index in itertools.compress(range(len(sources)), compared):
            for copy in copies_of(targets[index]):
                self._copies.setdefault(copy.device, []).append((index, copy))
        traced = tf.function(self._trace, autograph=False)
        self._function: Any = traced.get_concrete_function()

    def is_of(self, *both: list[Any]) -> bool:
        """Whether these are the variables that are compared."""
        are_same = [
            len(now) == len(then) and all(map(operator.is_, now, then))
            for now, then in zip(both, self._both, strict=True)
        ]
        return all(are_same)

    def differ(self) -> list[bool]:
        """Whether variables differ, or cannot be compared."""
        found = {*self._always}
        for copies, flags in zip(self._copies.values(), self._function(), strict=True):
            indices = (index for index, _ in copies)
            found.update(itertools.compress(indices, flags.numpy()))
        return [index in found for index in range(len(self._both[0]))]

    def _trace(self) -> list[tf.Tensor]:
        """For each device with copies, which of these differ."""
        expected = {
            index: _bits(copies_of(self._both[0][index])[0])
            for copies in self._copies.values()
            for index, _ in copies
        }
        found = []
        for device, copies in self._copies.items():
            with tf.device(device):
                differ = [
                    tf.reduce_any(tf.not_equal(expected[index], _bits(copy)))
                    for index, copy in copies
                ]
                found.append(tf.stack(differ))
        return found


def _are_comparable(before: Any, new: Any) -> bool:
    """Whether `assign` makes each copy of one equal to the first copy of the other."""
    first, own = copies_of(before)[0], copies_of(new)[0]
    if first.dtype != own.dtype or first.dtype not in {*_BITCAST, tf.bool}:
        return False
    if not (first.shape.is_fully_defined() and own.shape.is_fully_defined()):
        return False
    is_first = len(copies_of(before)) == 1 or combined_by(before) not in (MEAN, SUM)
    return is_first and (len(copies_of(new)) == 1 or combined_by(new) != SUM)


def _bits(variable: Any) -> tf.Tensor:
    """A value as integers that TensorFlow compares on GPUs too, unlike int32."""
    with tf.device(variable.device):
        value = variable.read_value()
        if value.dtype == tf.bool:
            return value
        num_bytes = value.shape.num_elements() * value.dtype.size
        if num_bytes % 8:
            return tf.bitcast(value, tf.uint8)
        flat = tf.reshape(value, [-1, 8 // value.dtype.size])
        return tf.bitcast(flat, tf.int64)
