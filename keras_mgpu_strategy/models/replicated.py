"""A model whose variables live on every replica, with what it declares.

Guarantees:

* A `ReplicatedModel` never stands for a model that lives on one device while its
  strategy has several: its maker checks that, or, for a model without variables yet,
  `models.build` does.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

import tensorflow as tf

from keras_mgpu_strategy.models.overrides import preprocess_of
from keras_mgpu_strategy.models.preprocessing import Preprocessing
from keras_mgpu_strategy.models.variables import hidden_variables, variables_of
from keras_mgpu_strategy.types import X_ALONE, Feeding, Nest


@dataclasses.dataclass(frozen=True)
class ReplicatedModel:
    """A model, the strategy that mirrors it, and its forward pass.

    Args:
        model: The Keras model, or the object that a SavedModel was loaded as.
        strategy: Mirrors every variable of `model`.
        call: Forward pass in inference mode: takes a nest of tensors of shape
            `(rows, ...)`, of x or, depending on `feeding`, of a whole element, and
            returns the nest of outputs. May be traced in replica context
            (`strategy.run`), or for one device inside
            `strategy.scope(), tf.device(device)`.
        input_spec: Nest of named `tf.TensorSpec` in the structure of the model's
            inputs, batch axis included; None if the model declares no inputs.
        output_shapes: Nest of `tf.TensorShape` in the structure of the outputs,
            batch axis included; None if only a call can show them.
        precision: Dtype that the floats of `model` were given; float outputs are then
            float32. None if the model is as its maker left it.
        variables: Those of a SavedModel, which may not list them itself; None for a
            Keras model, which does, and may have to be built first.
        graph: Digest of a SavedModel without its variables; None for a Keras model,
            which is identified by its layers.
        feeding: Which part of the user's input `call` is given.
        autograph: Whether `call` is traced with AutoGraph, as in tf_keras.
        compiled_for_xla: Returns how the user compiled the model; None if not at all.
    """

    model: Any
    strategy: tf.distribute.Strategy
    call: Callable[[Nest], Nest]
    input_spec: Nest | None = None
    output_shapes: Nest | None = None
    precision: str | None = None
    variables: tuple[Any, ...] | None = None
    graph: str | None = None
    feeding: Feeding = X_ALONE
    autograph: bool = False

    def preprocessing(self, raw_spec: Nest) -> Preprocessing | None:
        """Returns what is done to such rows before `call`; None if nothing is.

        Args:
            raw_spec: Nest of `tf.TensorSpec` of the rows as the user gives them.

        Raises:
            ValueError: If the model's preprocessing fails on such rows.
        """
        function = preprocess_of(self.model) if self.feeding.raw else None
        if function is None:
            return None
        return Preprocessing(
            type(self.model).__name__,
            function,
            raw_spec,
            is_whole=self.feeding.whole is not None,
        )

    compiled_for_xla: Callable[[], bool | None] = lambda: None

    @property
    def is_built(self) -> bool:
        """Whether the variables exist; if not, `models.build` creates them."""
        return bool(getattr(self.model, "built", True))

    def all_variables(self) -> list[Any]:
        """Those of the model, and those in its layers that Keras does not track."""
        if self.variables is not None:
            return list(self.variables)
        return [*variables_of(self.model), *hidden_variables(self.model)]
