"""User methods that override those that Keras' `predict` runs.

Guarantees:

* An overridden `predict_step` is run. The preprocessing of a KerasHub task comes first,
  as in its own `predict`.
* Any other overridden method that `model.predict` would run is refused, never ignored.
* Methods of nested models do not count: Keras ignores them, too.
"""

from collections.abc import Callable
from typing import Any

from keras_mgpu_strategy.models.libraries import (
    is_hub_class,
    is_hub_task,
    is_library_class,
    layers_of,
    library_of,
    symbols_of,
)
from keras_mgpu_strategy.types import Feeding, Nest


def is_overridden(model: Any, method: str) -> bool:
    """Whether a method is the user's own, in the class or set on the model."""
    return method in vars(model) or not is_library_class(_owner(model, method))


def is_of_hub(model: Any, method: str) -> bool:
    """Whether a method is KerasHub's own, not the user's or Keras'."""
    return method not in vars(model) and is_hub_class(_owner(model, method))


def preprocess_of(model: Any) -> Callable[..., Nest] | None:
    """Returns the preprocessing that a KerasHub task applies to rows.

    A function of x, targets and weights, as `tf.data.Dataset.map` calls it; None for
    any other model, and for a task without a preprocessor.
    """
    if not is_hub_task(model):
        return None
    has_none = getattr(model, "preprocessor", None) is None
    if has_none and is_of_hub(model, "preprocess_samples"):
        return None
    return model.preprocess_samples


def feeding_of(model: Any) -> Feeding:
    """Returns what `model.predict` would pass to the model."""
    whole = library_of(model).__name__ if is_overridden(model, "predict_step") else None
    own = "predict_on_batch"
    return Feeding(
        whole,
        raw=preprocess_of(model) is not None,
        own_batches=is_overridden(model, own) and not is_of_hub(model, own),
    )


def check_predict(model: Any) -> None:
    """Raises ValueError if `model.predict` would run code that does not run here."""
    own = [name for name in _own_methods(model) if not is_of_hub(model, name)]
    if own:
        raise ValueError(
            f"Model {model.name!r} ({type(model).__name__}) has its own `{own[0]}`, "
            "which would not run here, so results could differ from `model.predict`. "
            "Move what it does into `call` or `predict_step`, which run here, or do it "
            f"to the rows before and to the results after, and pass {_without(model)}, "
            "which has the same layers and weights but no such method."
        )


def check_on_object(model: Any) -> None:
    """Raises ValueError for methods set on objects, which a copy would not have."""
    found = [("predict_step", model)] if "predict_step" in vars(model) else []
    found += [("call", layer) for layer in layers_of(model) if "call" in vars(layer)]
    for name, owner in found:
        raise ValueError(
            f"`{name}` of {owner.name!r} was set on the object, and a copy on every "
            "device would not have it. Define it in a subclass, or make the model and "
            "set it inside `mgpu.scope()`."
        )


def _own_methods(model: Any) -> list[str]:
    methods = ("predict", "make_predict_function")
    own = [name for name in methods if is_overridden(model, name)]
    if not own and _has_own_function(model):
        own = ["predict_function"]
    return own


def _has_own_function(model: Any) -> bool:
    """Whether `predict` would run a compiled function that is not Keras' own."""
    function = getattr(model, "predict_function", None)
    code: Any = getattr(function, "python_function", function)
    return code is not None and not is_library_class(code)


def _owner(model: Any, method: str) -> type:
    return next(cls for cls in type(model).__mro__ if method in vars(cls))


def _without(model: Any) -> str:
    library = library_of(model).__name__
    if symbols_of(model, "inputs"):
        return f"`{library}.Model(model.input, model.output)`"
    return f"`{library}.Sequential([model])`"
