"""A model without layers, whose `test_step` computes losses and metrics of outputs.

Its inputs are the outputs of another model, and it is compiled as that one is, on the
host and outside of any strategy. So the numbers are those of Keras itself.
"""

import importlib
from collections.abc import Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.criteria import INSTEAD, Criteria
from keras_mgpu_strategy.models.masks import give_masks
from keras_mgpu_strategy.system.messages import cause_of


def make_judge(criteria: Criteria) -> Any:
    """Returns a compiled model whose `x` is `(outputs, masks)` of another one.

    Called outside of any scope. `masks` has a bool tensor, or an empty tuple for none,
    for each output.
    """
    library: Any = importlib.import_module(criteria.compiled.library)
    judge = _class_of(library)(criteria)
    try:
        criteria.compiled.compile(judge)
    # User code runs here and may raise anything.
    except Exception as error:
        raise ValueError(
            f"The losses and metrics of the model cannot be made again: "
            f"{cause_of(error)}\nGive the class of a metric a `get_config` that "
            f"returns all arguments of `__init__`. {INSTEAD}."
        ) from error
    return judge


def _class_of(library: Any) -> Any:
    class Judge(library.Model):
        """Returns what it is given, with masks where Keras looks for them."""

        def __init__(self, criteria: Criteria) -> None:
            super().__init__(name="judge", autocast=False)
            self.built = True
            self._penalties = [
                tf.Variable(tf.constant(value)) for value in criteria.penalties
            ]
            if criteria.output_names is not None:
                self.output_names = list(criteria.output_names)

        def call(self, inputs: Any) -> Any:
            """Returns the outputs."""
            outputs, masks = inputs
            # Keras 3.5 warns of masks on what it was given.
            outputs = tf.nest.map_structure(tf.identity, outputs)
            give_masks(outputs, masks)
            return outputs

        @property
        def losses(self) -> list[Any]:
            """The penalties of the weights."""
            return [tf.convert_to_tensor(value) for value in self._penalties]

        def begin(self, penalties: Sequence[np.ndarray]) -> None:
            """Forgets all rows; weights may have changed, and the penalties with it."""
            self.reset_metrics()
            for variable, value in zip(self._penalties, penalties, strict=True):
                variable.assign(value)

    return Judge
