"""User methods that override those that Keras' `predict` runs.

An overridden `predict_step` is run, after a KerasHub task's preprocessing; any other
method that `model.predict` would run is refused. Nested models' methods do not count.
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


def is_users(model: Any, method: str) -> bool:
    """Whether a method is neither Keras' nor KerasHub's own."""
    return is_overridden(model, method) and not is_of_hub(model, method)


def _owner(model: Any, method: str) -> type:
    return next(cls for cls in type(model).__mro__ if method in vars(cls))


def preprocess_of(model: Any) -> Callable[..., Nest] | None:
    """Returns a KerasHub task's preprocessing of x, targets and weights; else None."""
    if not is_hub_task(model):
        return None
    has_none = getattr(model, "preprocessor", None) is None
    is_idle = has_none and is_of_hub(model, "preprocess_samples")
    return None if is_idle else model.preprocess_samples


def feeding_of(model: Any) -> Feeding:
    """Returns what `model.predict` would pass to the model."""
    return Feeding(
        library_of(model).__name__ if is_overridden(model, "predict_step") else None,
        raw=preprocess_of(model) is not None,
        own_batches=is_users(model, "predict_on_batch"),
    )


def check_predict(model: Any) -> None:
    """Raises ValueError if `model.predict` would run code that does not run here."""
    methods = ("predict", "make_predict_function")
    own = [name for name in methods if is_overridden(model, name)]
    function = getattr(model, "predict_function", None)
    code: Any = getattr(function, "python_function", function)
    if not own and code is not None and not is_library_class(code):
        own = ["predict_function"]
    found = next((name for name in own if not is_of_hub(model, name)), None)
    if found:
        library = library_of(model).__name__
        bare = f"{library}.Sequential([model])"
        if symbols_of(model, "inputs"):
            bare = f"{library}.Model(model.input, model.output)"
        raise ValueError(
            f"Model {model.name!r} ({type(model).__name__}) has its own `{found}`, "
            "which would not run here, so results could differ from `model.predict`. "
            "Move what it does into `call` or `predict_step`, which run here, or do it "
            f"to the rows before and to the results after, and pass `{bare}`, which "
            "has the same layers and weights but no such method."
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
