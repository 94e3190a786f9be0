"""Runs a model on slices of a batch, each on a device of its own.

Guarantees:

* The model is called once per tower, and never on 0 rows.
* The forward and backward passes of a tower are placed on its device.
* Towers draw random numbers of their own.
"""

from collections.abc import Callable, Sequence
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models import drawing
from keras_mgpu_strategy.parallel import rows
from keras_mgpu_strategy.types import Nest


def run(
    forward: Callable[[Nest], Nest],
    inputs: Nest,
    devices: Sequence[str],
    *,
    with_gradients: bool,
) -> Nest:
    """Splits a batch, runs each slice on its device, joins the results on the host.

    Args:
        forward: Called in each tower with its rows.
        inputs: Nest of tensors of shape `(rows, ...)`.
        devices: One for each tower.
        with_gradients: Whether to place the backward pass too.

    Returns:
        Nest of tensors of shape `(rows, ...)`, in the structure of the outputs.

    Raises:
        TypeError: As in `rows.count`.
        ValueError: As in `rows.count` and `rows.joined`.
    """
    tower = _run_with_gradients if with_gradients else _run
    if len(devices) == 1:
        return tower(forward, inputs, devices[0])
    with tf.device(rows.HOST):
        shares = rows.shares(rows.count(inputs), len(devices))
        slices = [rows.cut(inputs, share) for share in shares]
    results = []
    for index, (device, part) in enumerate(zip(devices, slices, strict=True)):
        with tf.name_scope(f"tower_{index}"), drawing(index):
            results.append(tower(forward, part, device))
    with tf.device(rows.HOST):
        return rows.joined(results, shares)


def _run(forward: Callable[[Nest], Nest], part: Nest, device: str) -> Nest:
    with tf.device(device):
        return forward(part)


def _run_with_gradients(
    forward: Callable[[Nest], Nest], part: Nest, device: str
) -> Nest:
    """Runs a tower whose backward pass is on its device as well.

    TensorFlow assigns no device to the ops of a backward pass, so all towers would
    share the first GPU.
    """
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
    masks = [rows.mask_of(leaf) for leaf in _leaves(outputs[0])]
    for leaf, mask in zip(flat, masks, strict=True):
        rows.attach_mask(leaf, mask)
    return _packed(outputs[0], flat)


def _gradients(
    tape: tf.GradientTape,
    targets: Sequence[tf.Tensor],
    upstream: Sequence[tf.Tensor],
    sources: Sequence[tf.Tensor | tf.Variable],
) -> list[tf.Tensor | None]:
    """Gradients for all sources; None for integer ones."""
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


def _leaves(nest: Nest) -> list[tf.Tensor]:
    return [leaf for leaf in tf.nest.flatten(nest) if leaf is not None]


def _packed(structure: Nest, leaves: Sequence[tf.Tensor]) -> Nest:
    """Puts leaves into the places of a nest that do not hold None."""
    remaining = iter(leaves)
    return tf.nest.map_structure(
        lambda leaf: None if leaf is None else next(remaining), structure
    )
