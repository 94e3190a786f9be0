"""Runs a model on slices of a batch, each on a device of its own.

Slices cover every row once; sizes differ by one at most. A tower without a row reads
one of another's, and drops its result. Forward and backward passes are on its device;
batches are cut and joined on the CPU, with masks. Towers draw numbers of their own.
"""

import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple, TypeAlias

import tensorflow as tf

from keras_mgpu_strategy.models import drawing
from keras_mgpu_strategy.types import Nest

_HOST = "CPU:0"
_ROW_FOR_ROW = "no row for each row of the input"
Size: TypeAlias = Any
"""A number of rows: an int where the graph knows it, else a scalar tensor."""


class _Share(NamedTuple):
    """The rows `begin` to `end` that a tower reads, and how many results count."""

    begin: Size
    end: Size
    num_kept: Size


def run(
    forward: Callable[[Nest], Nest],
    inputs: Nest,
    devices: Sequence[str],
    *,
    with_gradients: bool,
) -> Nest:
    """Splits a batch, runs each slice on its device, joins the results."""
    if len(devices) == 1:
        return _run(forward, inputs, devices[0], with_gradients)
    with tf.device(_HOST):
        shares = _shares(num_rows_of(inputs), len(devices))
        parts = [_map_leaves(lambda t, s=s: _cut(t, s), inputs) for s in shares]
    results = []
    for index, (device, part) in enumerate(zip(devices, parts, strict=True)):
        with tf.name_scope(f"tower_{index}"), drawing(index):
            results.append(_run(forward, part, device, with_gradients))
    with tf.device(_HOST):
        return tf.nest.map_structure(lambda *parts: _join(parts, shares), *results)


def num_rows_of(inputs: Nest) -> Size:
    """Number of rows of a batch, which must be dense, and the same in all leaves."""
    leaves = _leaves(inputs)
    for leaf in leaves:
        if not _is_dense(leaf):
            raise TypeError(
                "A parallel model splits dense tensors, and received a "
                f"{type(leaf).__name__}. Convert it to a dense tensor first."
            )
        if leaf.shape.rank == 0:
            raise ValueError(
                "A parallel model splits its inputs by rows, and received a scalar. "
                "Give it a value for each row."
            )
    sizes = {leaf.shape[0] for leaf in leaves} - {None}
    if len(sizes) > 1 or 0 in sizes or not leaves:
        raise ValueError(
            "A parallel model splits its inputs by rows, and received inputs of "
            f"shapes {[tuple(leaf.shape) for leaf in leaves]}. Expected the same "
            "number of rows in all of them, and at least one."
        )
    if sizes:
        return sizes.pop()
    first, *others = [tf.shape(leaf)[0] for leaf in leaves]
    message = "inputs differ in number of rows"
    checks: Any = [tf.debugging.assert_equal(each, first, message) for each in others]
    empty = "a parallel model received 0 rows"
    checks.append(tf.debugging.assert_positive(first, empty))
    with tf.control_dependencies(checks):
        return tf.identity(first)


def _shares(num_rows: Size, num_towers: int) -> list[_Share]:
    larger = max if isinstance(num_rows, int) else tf.maximum
    bounds = [tower * num_rows // num_towers for tower in range(num_towers + 1)]
    return [
        _Share(begin, larger(end, begin + 1), end - begin)
        for begin, end in itertools.pairwise(bounds)
    ]


def _cut(leaf: tf.Tensor, share: _Share) -> tf.Tensor:
    rows, mask = slice(share.begin, share.end), _mask_of(leaf)
    return _masked(leaf[rows], None if mask is None else mask[rows])


def _join(parts: Sequence[Any], shares: Sequence[_Share]) -> Any:
    if parts[0] is None:
        return None
    kept, masks = [], []
    for part, (begin, end, num_kept) in zip(parts, shares, strict=True):
        if not _is_dense(part) or part.shape.rank == 0:
            raise ValueError(
                f"The model returns {part!r}, which has {_ROW_FOR_ROW}. A parallel "
                "model joins dense outputs by rows."
            )
        message = f"an output has {_ROW_FOR_ROW}"
        check = tf.debugging.assert_equal(tf.shape(part)[0], end - begin, message)
        with tf.control_dependencies([check]):
            kept.append(tf.identity(part)[:num_kept])
        mask = _mask_of(part)
        masks += [] if mask is None else [mask[:num_kept]]
    return _masked(tf.concat(kept, 0), tf.concat(masks, 0) if masks else None)


def _is_dense(leaf: Any) -> bool:
    is_composite = isinstance(leaf, tf.SparseTensor | tf.RaggedTensor)
    return bool(tf.is_tensor(leaf)) and not is_composite


def _mask_of(tensor: tf.Tensor) -> tf.Tensor | None:
    # Layers and losses find a mask in this attribute, which has no public accessor.
    return getattr(tensor, "_keras_mask", None)


def _masked(tensor: tf.Tensor, mask: tf.Tensor | None) -> tf.Tensor:
    if mask is not None:
        tensor._keras_mask = mask  # type: ignore[attr-defined]
    return tensor


def _run(
    forward: Callable[[Nest], Nest], part: Nest, device: str, with_gradients: bool
) -> Nest:
    """Runs a tower, and its backward pass, which TensorFlow leaves unplaced."""
    if not with_gradients:
        with tf.device(device):
            return forward(part)
    outputs: list[Nest] = []

    @tf.custom_gradient
    def tower(*leaves: tf.Tensor):
        with tf.device(device), tf.GradientTape(persistent=True) as tape:
            tape.watch([leaf for leaf in leaves if leaf.dtype.is_floating])
            outputs.append(forward(_packed(part, leaves)))
            # Outputs that are unchanged inputs may belong to another graph.
            flat = [tf.identity(leaf) for leaf in _leaves(outputs[0])]

        def backward(*upstream: tf.Tensor, variables: Sequence[tf.Variable] = ()):
            with tf.device(device):
                found = _gradients(tape, flat, upstream, [*leaves, *variables])
            of_leaves = found[: len(leaves)]
            return (of_leaves, found[len(leaves) :]) if variables else of_leaves

        return flat, backward

    flat: Any = tower(*_leaves(part))
    for leaf, output in zip(flat, _leaves(outputs[0]), strict=True):
        _masked(leaf, _mask_of(output))
    return _packed(outputs[0], flat)


def _gradients(
    tape: tf.GradientTape,
    targets: Sequence[tf.Tensor],
    upstream: Sequence[tf.Tensor],
    sources: Sequence[tf.Tensor | tf.Variable],
) -> list[tf.Tensor | None]:
    pairs = [
        (target, gradient)
        for target, gradient in zip(targets, upstream, strict=True)
        if target.dtype.is_floating and gradient is not None
    ]
    wanted = [source for source in sources if source.dtype.is_floating]
    found: Any = tape.gradient(
        [target for target, _ in pairs], wanted, [gradient for _, gradient in pairs]
    )
    remaining = iter(found)
    return [next(remaining) if source.dtype.is_floating else None for source in sources]


def _map_leaves(function: Callable[[Any], Any], nest: Nest) -> Nest:
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else function(leaf), nest
    )


def _leaves(nest: Nest) -> list[Any]:
    return [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]


def _packed(structure: Nest, leaves: Sequence[tf.Tensor]) -> Nest:
    remaining = iter(leaves)
    return _map_leaves(lambda _: next(remaining), structure)
