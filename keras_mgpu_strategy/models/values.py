"""Reads and writes variables as a whole, though they may have a copy on each replica.

Guarantee: what is read is what saving the model would store. Copies on replicas can
differ: training under a strategy changes those of moving statistics separately.
"""

from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.variables import value_of

_ON_READ = tf.VariableSynchronization.ON_READ
_MEAN, _SUM = tf.VariableAggregation.MEAN, tf.VariableAggregation.SUM


def copies_of(variable: Any) -> list[Any]:
    """Returns a variable's copy on each replica; the variable itself if not copied."""
    value = value_of(variable)
    if not isinstance(value, tf.distribute.DistributedValues):
        return [value]
    return list(value.distribute_strategy.experimental_local_results(value))


def is_mean(variable: Any) -> bool:
    """Whether saving a variable stores the mean of its copies."""
    value = value_of(variable)
    return value.synchronization == _ON_READ and value.aggregation == _MEAN


def is_sum(variable: Any) -> bool:
    """Whether saving a variable stores the sum of its copies."""
    value = value_of(variable)
    return value.synchronization == _ON_READ and value.aggregation == _SUM


def aggregate(variable: Any) -> tf.Tensor:
    """Returns what saving a variable stores, computed as TensorFlow does."""
    copies = [copy.read_value() for copy in copies_of(variable)]
    if len(copies) == 1 or not (is_mean(variable) or is_sum(variable)):
        return copies[0]
    total = tf.add_n(copies)
    return tf.cast(total / len(copies), total.dtype) if is_mean(variable) else total


def host_value(value: Any) -> np.ndarray:
    """Returns the value of a variable, or an array.

    Reads the copies: a mirrored variable cannot be read as a whole in the scope of
    another strategy, and some cannot even in the scope of their own.
    """
    if not hasattr(value, "assign"):
        return np.asarray(value)
    if is_mean(value):
        copies = [np.asarray(copy) for copy in copies_of(value)]
        if all(np.array_equal(copies[0], copy) for copy in copies):
            return copies[0]  # a mean of equal numbers can differ from them
    return np.asarray(aggregate(value))


def assign(variable: Any, value: np.ndarray) -> None:
    """Sets a variable so that `host_value` returns that value."""
    copies = copies_of(variable)
    if len(copies) == 1 or not is_sum(variable):
        variable.assign(value)
        return
    # TensorFlow would give each copy a share of the sum, rounded for integers.
    for index, copy in enumerate(copies):
        copy.assign(np.zeros_like(value) if index else value)
