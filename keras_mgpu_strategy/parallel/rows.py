"""Rows of a batch: how many there are, a slice of them, and slices joined again.

Guarantees:

* The slices of all towers cover every row once. Their sizes differ by one at most.
* No slice is empty: a tower left without a row reads one of another tower's rows,
  and keeps none of its results.
* Masks that Keras attaches to tensors are cut and joined with them.
"""

import dataclasses
from collections.abc import Sequence
from typing import Any, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.types import Nest

HOST = "CPU:0"
"""Where batches are cut and joined, as the recipe has it."""

Size: TypeAlias = Any
"""A number of rows: an int where the graph knows it, else a scalar tensor."""


@dataclasses.dataclass(frozen=True, slots=True)
class Share:
    """The rows of one tower.

    Args:
        begin: First row.
        end: One past the last row that the tower reads.
        num_kept: Rows whose results count: all that are read, or none.
    """

    begin: Size
    end: Size
    num_kept: Size


def shares(num_rows: Size, num_towers: int) -> list[Share]:
    """Deals rows out to towers, in order.

    Args:
        num_rows: At least 1.
        num_towers: At least 1.
    """
    bounds = [tower * num_rows // num_towers for tower in range(num_towers + 1)]
    return [
        Share(begin, _larger(end, begin + 1), end - begin)
        for begin, end in zip(bounds[:-1], bounds[1:], strict=True)
    ]


def count(inputs: Nest) -> Size:
    """Number of rows of a batch, which all leaves must have.

    Raises:
        TypeError: A leaf is a sparse or ragged tensor.
        ValueError: A leaf has no batch axis, there is no leaf, the leaves disagree,
            or there are no rows.
    """
    leaves = _leaves(inputs)
    for leaf in leaves:
        _check_input(leaf)
    sizes = {leaf.shape[0] for leaf in leaves} - {None}
    if len(sizes) > 1 or 0 in sizes or not leaves:
        raise ValueError(
            "A parallel model splits its inputs by rows, and received inputs of "
            f"shapes {[tuple(leaf.shape) for leaf in leaves]}. Expected the same "
            "number of rows in all of them, and at least one."
        )
    return sizes.pop() if sizes else _count_in_graph(leaves)


def cut(inputs: Nest, share: Share) -> Nest:
    """Rows of a share."""
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else _slice(leaf, share.begin, share.end),
        inputs,
    )


def joined(results: Sequence[Nest], kept: Sequence[Share]) -> Nest:
    """Joins what the towers return, in row order.

    Args:
        results: One nest for each tower.
        kept: The share of each tower.

    Raises:
        ValueError: An output has no batch axis.
    """
    return tf.nest.map_structure(lambda *parts: _join(parts, kept), *results)


def attach_mask(tensor: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    """Attaches a Keras mask to a tensor; returns the tensor.

    Layers and losses downstream look for a mask in `_keras_mask`, a name that has no
    public accessor. Tested with Keras 3.15.
    """
    if mask is not None:
        tensor._keras_mask = mask  # type: ignore[attr-defined]
    return tensor


def mask_of(tensor: tf.Tensor) -> tf.Tensor | None:
    """The mask that Keras has attached to a tensor, or None."""
    return getattr(tensor, "_keras_mask", None)


def _leaves(inputs: Nest) -> list[Any]:
    # Keras allows None for optional inputs.
    return [leaf for leaf in tf.nest.flatten(inputs) if leaf is not None]


def _is_dense(leaf: Any) -> bool:
    composite = isinstance(leaf, tf.SparseTensor | tf.RaggedTensor)
    return bool(tf.is_tensor(leaf)) and not composite


def _check_input(leaf: Any) -> None:
    if not _is_dense(leaf):
        raise TypeError(
            "A parallel model splits dense tensors, and received a "
            f"{type(leaf).__name__}. Convert it to a dense tensor first."
        )
    if leaf.shape.rank == 0:
        raise ValueError(
            "A parallel model splits its inputs by rows, and received a scalar. Give "
            "it a value for each row."
        )


def _count_in_graph(leaves: Sequence[tf.Tensor]) -> tf.Tensor:
    num_rows, *others = [tf.shape(leaf)[0] for leaf in leaves]
    checks = [
        tf.debugging.assert_positive(num_rows, "a parallel model received 0 rows")
    ] + [
        tf.debugging.assert_equal(other, num_rows, "inputs differ in number of rows")
        for other in others
    ]
    with tf.control_dependencies([check for check in checks if check is not None]):
        return tf.identity(num_rows)


def _larger(one: Size, other: Size) -> Size:
    if isinstance(one, int) and isinstance(other, int):
        return max(one, other)
    return tf.maximum(one, other)


def _slice(leaf: tf.Tensor, begin: Size, end: Size) -> tf.Tensor:
    mask = mask_of(leaf)
    return attach_mask(leaf[begin:end], None if mask is None else mask[begin:end])


def _join(parts: Sequence[Any], kept: Sequence[Share]) -> Any:
    if parts[0] is None:
        return None
    checked = [_with_rows(part, share) for part, share in zip(parts, kept, strict=True)]
    masks = [mask_of(part) for part in parts]
    mask = None if masks[0] is None else tf.concat(_trimmed(masks, kept), 0)
    return attach_mask(tf.concat(_trimmed(checked, kept), 0), mask)


def _trimmed(parts: Sequence[Any], kept: Sequence[Share]) -> list[tf.Tensor]:
    return [part[: share.num_kept] for part, share in zip(parts, kept, strict=True)]


def _with_rows(part: tf.Tensor, share: Share) -> tf.Tensor:
    """The result of a tower, known to have one row for each input row."""
    if not _is_dense(part) or part.shape.rank == 0:
        raise ValueError(
            f"The model returns {part!r}, which has no row for each row of the input. "
            "A parallel model joins dense outputs by rows."
        )
    wanted = share.end - share.begin
    if isinstance(wanted, int) and part.shape[0] == wanted:
        return part
    check = tf.debugging.assert_equal(
        tf.shape(part)[0], wanted, "an output has no row for each row of the input"
    )
    with tf.control_dependencies([] if check is None else [check]):
        return tf.identity(part)
