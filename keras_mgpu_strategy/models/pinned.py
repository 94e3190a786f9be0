"""One value on all replicas for variables whose copies differ.

Training under a strategy changes the moving statistics of batch normalization on each
replica separately. In prediction all replicas read what saving would have stored at the
start of the run. The copies are left as they are; equal ones cost no memory.
"""

import functools
import itertools
import threading
from collections.abc import Iterable
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.models.draws import is_seed
from keras_mgpu_strategy.models.variables import (
    SUM,
    aggregate,
    combined_by,
    copies_of,
    stand_in_for,
    value_of,
)

_MOST_BYTES = 2**24

Copies: TypeAlias = list[Any]
"""The copies of a variable, one for each replica."""


class PinnedValues:
    """Stands in for variables of a model whose copies differ.

    Attributes:
        version: Grows when more variables are pinned; steps must then be traced again.
        handles: Id of the handle of a copy -> the handle to read instead.
    """

    def __init__(self, variables: Iterable[Any]):
        self.version = 0
        self.handles: dict[int, Any] = {}
        self._lock = threading.Lock()
        self._pinned: list[tuple[Any, Copies]] = []
        candidates = [v for v in map(value_of, variables) if _may_differ(v)]
        self._groups = _grouped([v for v in candidates if combined_by(v) != SUM])
        self._pin([v for v in candidates if combined_by(v) == SUM])

    def refresh(self) -> None:
        """Updates the stand-ins; call it when a run begins."""
        with self._lock:
            if self._groups:
                differing = itertools.compress(self._groups, self._look().numpy())
                if found := list(itertools.chain(*differing)):
                    self._pin(found)
            if self._pinned:
                self._update()

    def _pin(self, variables: list[Any]) -> None:
        pinned = [(v, list(map(stand_in_for, copies_of(v)))) for v in variables]
        handles = {
            id(copy.handle): stand_in.handle
            for variable, stand_ins in pinned
            for copy, stand_in in zip(copies_of(variable), stand_ins, strict=True)
        }
        ids = set(map(id, variables))
        self._groups = [g for g in self._groups if not ids & set(map(id, g))]
        self._look = _compiled(_differing, self._groups)
        self._pinned = [*self._pinned, *pinned]
        self._update = _compiled(_assign_aggregates, self._pinned)
        self.handles = {**self.handles, **handles}
        self.version += bool(variables)


def _compiled(function: Any, argument: Any) -> Any:
    return tf.function(functools.partial(function, argument), autograph=False)


def _may_differ(value: Any) -> bool:
    """Whether replicas may have changed their copies separately."""
    if len(copies_of(value)) == 1 or is_seed(value):
        return False
    # Optimizers change trainable variables on all replicas alike.
    alone = value.aggregation == tf.VariableAggregation.NONE and not value.trainable
    return alone or combined_by(value) is not None


def _grouped(variables: list[Any]) -> list[list[Any]]:
    """Groups by dtype: each is compared with a single copy between devices."""
    groups: list[list[Any]] = []
    sizes: dict[tf.DType, int] = {}
    for variable in sorted(variables, key=lambda v: v.dtype.name):
        size = variable.shape.num_elements() * variable.dtype.size
        if sizes.get(variable.dtype, _MOST_BYTES) + size > _MOST_BYTES:
            groups.append([])
            sizes[variable.dtype] = 0
        groups[-1].append(variable)
        sizes[variable.dtype] += size
    return groups


def _differing(groups: list[list[Any]]) -> tf.Tensor:
    """Which groups hold a variable whose copies differ."""
    found = []
    for group in groups:
        of_replicas = list(zip(*map(copies_of, group), strict=True))
        first, *others = map(_flat, of_replicas)
        with tf.device(of_replicas[0][0].device):
            differ = [tf.reduce_any(first != other) for other in others]
            found.append(tf.reduce_any(differ))
    return tf.stack(found)


def _flat(copies: tuple[Any, ...]) -> tf.Tensor:
    """One replica's copies of a group, as one vector on its device."""
    with tf.device(copies[0].device):
        return tf.concat([tf.reshape(copy.read_value(), [-1]) for copy in copies], 0)


def _assign_aggregates(pinned: list[tuple[Any, Copies]]) -> None:
    for variable, stand_ins in pinned:
        with tf.device(stand_ins[0].device):
            value = aggregate(variable)
        for stand_in in stand_ins:
            with tf.device(stand_in.device):
                stand_in.assign(value)
