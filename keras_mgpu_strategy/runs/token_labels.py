"""Losses and metrics of outputs with a value for each token, on the host.

Rows are padded again to the longest of a block, with masks that leave padding out. Only
what does not change with the padding is computed: Keras' losses heed masks, and its
metrics do if they are given weights.
"""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import Nest, Ragged

_CLOSE = 1e-5
_EXTRA = (0, 1, 7)
"""Lengths of padding beyond the longest row that are tried."""


def is_ragged(nest: Nest) -> bool:
    """Whether rows of a nest differ in length."""
    return any(isinstance(leaf, Ragged) for leaf in tf.nest.flatten(nest))


def fitting_targets(outputs: Nest, targets: tuple[Nest, ...]) -> tuple[Nest, ...]:
    """Targets with arrays in place of lists of one length that are not of tokens."""
    ragged = [leaf for leaf in tf.nest.flatten(outputs) if isinstance(leaf, Ragged)]

    def fitting(leaf: Any) -> Any:
        if not isinstance(leaf, Ragged):
            return leaf
        lengths = leaf.lengths
        is_of_tokens = any(np.array_equal(lengths, x.lengths) for x in ragged)
        if is_of_tokens or (lengths != lengths[:1]).any():
            return leaf
        values = leaf.packed().values
        return values.reshape(len(leaf), -1, *values.shape[1:])

    return tf.nest.map_structure(fitting, targets)


def padded_block(
    outputs: tuple[Nest, list[Any]],
    targets: tuple[Nest, ...],
    extra: int = 0,
    random: np.random.Generator | None = None,
) -> tuple[tuple[Nest, list[Any]], tuple[Nest, ...]]:
    """Returns `(outputs, masks)` and `(y, sample_weight)` as arrays of one length.

    Padding is False in masks and 0 in weights; elsewhere it is any of the tokens, since
    made-up values may have no finite loss. `extra` is padding beyond the longest row.
    """
    _check_lengths((outputs, targets))
    values, masks = outputs

    def filled(nest: Nest, with_tokens: bool) -> Nest:
        return tf.nest.map_structure(
            lambda leaf: _padded(leaf, extra, with_tokens, random), nest
        )

    y, weights = filled(targets[:1], True), filled(targets[1:], False)
    return (filled(values, True), filled(masks, False)), (*y, *weights)


def _padded(
    leaf: Any, extra: int, with_tokens: bool, random: np.random.Generator | None
) -> np.ndarray:
    if not isinstance(leaf, Ragged):
        return leaf
    lengths, values = leaf.lengths, leaf.packed().values
    length = int(lengths.max(initial=0)) + extra
    is_own = np.arange(length) < lengths[:, None]
    shape = (len(leaf), length, *values.shape[1:])
    if not with_tokens or not len(values):
        result = np.zeros(shape, values.dtype)
    elif random is None:
        result = np.broadcast_to(values[0], shape).copy()
    else:
        result = values[random.integers(0, len(values), shape[:2])]
    result[is_own] = values
    return result


def _check_lengths(nest: Nest) -> None:
    ragged = [leaf for leaf in tf.nest.flatten(nest) if isinstance(leaf, Ragged)]
    for leaf in ragged[1:]:
        differ = leaf.lengths != ragged[0].lengths
        if differ.any():
            row = int(differ.argmax())
            raise ValueError(
                f"The outputs of a row have {ragged[0].lengths[row]} tokens, and its "
                f"labels or weights {leaf.lengths[row]}. Expected one for each token "
                "of a row."
            )


def check_padding(
    block: tuple[Nest, ...], logs_of: Callable[[tuple[Nest, ...], int], dict[str, Any]]
) -> None:
    """Raises ValueError if losses or metrics of a batch change with its padding.

    `logs_of` computes them from arrays of so many rows.
    """
    outputs, targets = block
    size = len(tf.nest.flatten(block)[0])
    randoms = map(np.random.default_rng, _EXTRA)
    blocks = map(functools.partial(padded_block, outputs, targets), _EXTRA, randoms)
    logs = [logs_of(padded, size) for padded in blocks]
    differ = [name for name in logs[0] if not _are_close([x[name] for x in logs])]
    if differ:
        raise ValueError(
            f"{', '.join(differ)} would count padding, since outputs have a value for "
            "each token: Keras leaves it out of a loss if the output has a mask, and "
            "of a metric if there are also weights. Expected losses and metrics that "
            "do not depend on padding. Name metrics in compile(weighted_metrics=[...]) "
            "and pass sample_weight= with 1 for each token, use a model whose outputs "
            "have masks, or compute them from what `predict` returns."
        )


def _are_close(values: list[Any]) -> bool:
    first = values[0]
    return all(np.allclose(first, x, _CLOSE, 1e-7, equal_nan=True) for x in values[1:])
