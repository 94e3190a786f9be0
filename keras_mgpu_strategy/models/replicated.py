"""A model whose variables live on every replica, with what it declares.

Guarantees:

* A `ReplicatedModel` never stands for a model that lives on one device alone while
  its strategy has several: whoever makes one checks that, or, for a model without
  variables yet, has it checked by `models.build`.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.types import Nest


@dataclasses.dataclass(frozen=True)
class ReplicatedModel:
    """A model, the strategy that mirrors it, and its forward pass.

    Args:
        model: The Keras model, or the object that a SavedModel was loaded as.
        strategy: Mirrors every variable of `model`.
        call: Forward pass in inference mode: takes a nest of tensors of shape
            `(rows, ...)`, returns the nest of outputs. May be traced in replica
            context (`strategy.run`), or for one device inside
            `strategy.scope(), tf.device(device)`.
        input_spec: Nest of named `tf.TensorSpec` in the structure of the model's
            inputs, batch axis included; None where the model declares no inputs.
        output_shapes: Nest of `tf.TensorShape` in the structure of the outputs,
            batch axis included; None where only a call can tell.
        precision: Dtype that the floats of `model` were given; outputs of floats are
            then float32. None where the model is as its maker left it.
        variables: Those of a SavedModel, which need not know them itself; None for a
            Keras model, which does, and may have to be built first.
        graph: Digest of a SavedModel without its variables; None for a Keras model,
            which is told by its layers.
        compiled_for_xla: Tells how the user has compiled the model; None if not at all.
    """

    model: Any
    strategy: tf.distribute.Strategy
    call: Callable[[Nest], Nest]
    input_spec: Nest | None = None
    output_shapes: Nest | None = None
    precision: str | None = None
    variables: tuple[Any, ...] | None = None
    graph: str | None = None
    compiled_for_xla: Callable[[], bool | None] = lambda: None

    @property
    def is_built(self) -> bool:
        """Whether the variables exist; where not, `models.build` creates them."""
        return bool(getattr(self.model, "built", True))
