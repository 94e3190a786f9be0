"""What `evaluate` of a compiled model computes from outputs and labels, and a judge.

Only what depends on outputs and labels alone can be computed apart from the model;
anything else is refused.
"""

import dataclasses
import importlib
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.models.compile_settings import (
    Compiled,
    compiled_of,
    is_compiled,
    settings_of,
)
from keras_mgpu_strategy.models.libraries import layers_of
from keras_mgpu_strategy.models.masks import give_masks
from keras_mgpu_strategy.models.overrides import is_overridden, is_users
from keras_mgpu_strategy.models.replicated import ReplicatedModel
from keras_mgpu_strategy.models.variables import outside_scopes
from keras_mgpu_strategy.system.messages import cause_of
from keras_mgpu_strategy.types import Nest

_INSTEAD = (
    "Call `predictor.model.evaluate`, which is Keras' own under the strategy of the "
    "devices"
)
_STEPS = ("predict_step", "test_step", "compute_loss", "compute_metrics")
_STEPS += ("get_metrics_result",)
_METHODS = ("evaluate", "make_test_function", "reset_metrics", "metrics", "losses")


@dataclasses.dataclass(frozen=True)
class Criteria:
    """Losses and metrics of a compiled model, for another process or device.

    Args:
        outputs: `tf.TensorSpec`s of the outputs and of their masks; see `masks_of`.
        compiled: Losses and metrics.
        output_names: As Keras names outputs, or None if it does not.
        penalties: Values of the weights' regularizers.
    """

    outputs: Nest
    compiled: Compiled
    output_names: tuple[str, ...] | None
    penalties: tuple[np.ndarray, ...] = ()


class Examiner:
    """Finds the criteria of a model, and keeps them until it is compiled again."""

    def __init__(
        self, replicated: ReplicatedModel, head: Callable[[Nest], Nest]
    ) -> None:
        self._replicated, self._head = replicated, head
        self._kept: dict[str, tuple[Any, Criteria]] = {}

    def criteria(self, spec: Nest) -> Criteria:
        """Returns the criteria of the built model, given rows of this spec.

        Raises ValueError if what `evaluate` computes depends on more than outputs.
        """
        each = self._replicated.each
        judged = next((x for x in each if is_compiled(x.model)), each[0])
        _check(judged, "predictor.model[0]" if len(each) > 1 else "predictor.model")
        model = judged.model
        settings, key = settings_of(model), repr(spec)
        known_for, kept = self._kept.get(key, (None, None))
        if kept is None or known_for is not settings:
            outputs = _outputs(self._replicated, model, self._head, spec)
            kept = Criteria(outputs, compiled_of(model), output_names_of(model))
            self._kept[key] = (settings, kept)
        return dataclasses.replace(kept, penalties=outside_scopes(_penalties, model))


def make_judge(criteria: Criteria) -> Any:
    """Returns a model whose `test_step` computes the losses and metrics of another's.

    It has no layers, and its `x` is `(outputs, masks)` of that one, see `masks_of`. So
    the numbers are those of Keras itself. Called outside of any scope.
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
            f"returns all arguments of `__init__`. {_INSTEAD}."
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


def _check(replicated: ReplicatedModel, name: str) -> None:
    model = replicated.model
    if replicated.outputs:
        raise ValueError(
            f"Received outputs={list(replicated.outputs)}, but losses and metrics "
            "belong to all outputs of the model. Make a Predictor without outputs= to "
            "evaluate it."
        )
    if not is_compiled(model):
        raise ValueError(
            f"{_named(model)} is not compiled, so it has no loss and no metrics. Call "
            f"`{name}.compile(loss=..., metrics=[...])` before `evaluate`."
        )
    _check_keras_computes(model)
    if replicated.feeding.raw:
        raise ValueError(
            f"{_named(model)} preprocesses rows and labels together, but here labels "
            f"do not pass through the preprocessor. {_INSTEAD}, or preprocess rows and "
            "labels yourself and set `preprocessor = None` before passing the model."
        )


def _check_keras_computes(model: Any) -> None:
    """Raises ValueError if the user's methods or layers compute losses or metrics."""
    own = [name for name in _STEPS if is_overridden(model, name)]
    own += [name for name in _METHODS if is_users(model, name)]
    if own:
        raise ValueError(
            f"{_named(model)} has its own `{own[0]}`, but here losses and metrics are "
            "computed from the outputs as Keras' own methods do, so results could "
            f"differ from `model.evaluate`. {_INSTEAD}, or compute the metrics from "
            "what `predict` returns."
        )
    for layer in layers_of(model):
        # `metrics` of a model holds those of `compile`, too. Tried with Keras 3.5 and
        # 3.15, tf_keras 2.18 and 2.21.
        if getattr(layer, "_metrics", ()):
            raise ValueError(
                f"Layer {layer.name!r} ({type(layer).__name__}) has metrics of its "
                "own, which are updated while the model runs, on its device alone. "
                f"{_INSTEAD}, or pass the metrics to `compile`."
            )


def _outputs(
    replicated: ReplicatedModel, model: Any, head: Callable[[Nest], Nest], spec: Nest
) -> Nest:
    """Traces one call, to see what the model whose losses count adds to outputs."""

    def forward(*flat: tf.Tensor) -> Nest:
        return head(replicated.call(replicated.in_form(spec, flat)))

    function = tf.function(forward, autograph=replicated.autograph)
    with replicated.strategy.scope():
        concrete: Any = function.get_concrete_function(*tf.nest.flatten(spec))
    if any(map(tf.is_symbolic_tensor, model.losses)):
        raise ValueError(
            f"{_named(model)} adds losses that depend on its inputs (add_loss or "
            "activity_regularizer). They are computed batch by batch on the devices, "
            f"whose batches are not those of `evaluate`. {_INSTEAD}, or compute the "
            "loss from the model's outputs in a function passed to `compile`."
        )
    return tf.nest.map_structure(
        lambda leaf: tf.TensorSpec(leaf.shape, leaf.dtype), concrete.structured_outputs
    )


def output_names_of(model: Any) -> tuple[str, ...] | None:
    """The names by which Keras calls the outputs; None if it has none."""
    names = getattr(model, "output_names", None)
    return None if names is None else tuple(names)


def _penalties(model: Any) -> tuple[np.ndarray, ...]:
    return tuple(np.asarray(loss) for loss in model.losses)


def _named(model: Any) -> str:
    return f"Model {model.name!r} ({type(model).__name__})"
