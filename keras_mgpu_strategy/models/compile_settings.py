"""Compile settings of a model: optimizer and its state, loss, metrics.

Functions and losses are the user's own objects; optimizer and metrics are created
again, to be mirrored. What cannot be carried over is reported, never silently dropped.
"""

import dataclasses
import importlib
from typing import Any

from keras_mgpu_strategy.element_forms import map_nest
from keras_mgpu_strategy.models.custom_objects import (
    collect,
    functions_of,
    give_functions,
    leaves,
)
from keras_mgpu_strategy.models.libraries import is_library_class, layers_of, library_of
from keras_mgpu_strategy.models.overrides import is_users
from keras_mgpu_strategy.models.state import assign_all
from keras_mgpu_strategy.models.variables import outside_scopes
from keras_mgpu_strategy.system.messages import warn

_PORTABLE = ("loss", "loss_weights", "metrics", "weighted_metrics")
_PORTABLE += ("run_eagerly", "jit_compile")


def copy_compile(source: Any, target: Any) -> None:
    """Compiles a rebuilt or newly built model as `source` is compiled."""
    if not is_compiled(source):
        return
    old, strategy = source.optimizer, target.distribute_strategy
    if is_users(source, "compile"):  # that of KerasHub only chooses defaults
        scope = library_of(source).saving.custom_object_scope(_objects_of(source))
        with scope, strategy.scope():
            _compile_by_hooks(source, target)
    else:
        compiled = compiled_of(source, with_optimizer=True)
        if compiled.arguments.get("jit_compile"):
            # Keras stores what "auto" meant without a strategy; under one it is False.
            is_legacy = compiled.library == "tf_keras"
            compiled.arguments["jit_compile"] = None if is_legacy else "auto"
        compiled.compile(target)
    new = getattr(target, "optimizer", None)
    if old is None or new is None:
        return
    is_bare = len(_variables(old)) > len(_variables(new))
    if is_bare and target.trainable_variables:
        with strategy.scope():
            new.build(target.trainable_variables)
    _copy_optimizer(old, new, target)


@dataclasses.dataclass(frozen=True)
class Compiled:
    """How a model is compiled; may be pickled without its optimizer.

    Args:
        library: "keras" or "tf_keras".
        arguments: Of `compile`, with recipes for what holds variables.
        custom_objects: The user's classes and functions by name.
    """

    library: str
    arguments: dict[str, Any]
    custom_objects: dict[str, Any]

    def compile(self, model: Any) -> None:
        """Compiles a model in the same way, with metrics of its own."""
        library: Any = importlib.import_module(self.library)
        objects = library.saving.custom_object_scope(self.custom_objects)
        with objects, model.distribute_strategy.scope():
            model.compile(**map_nest(_made, self.arguments))


def compiled_of(model: Any, *, with_optimizer: bool = False) -> Compiled:
    """Returns how a compiled model is compiled."""
    # An optimizer's configuration holds the current values of its variables.
    recipes = outside_scopes(_recipes, model)
    if not with_optimizer:
        recipes = {name: recipes[name] for name in _PORTABLE if name in recipes}
    return Compiled(library_of(model).__name__, recipes, _objects_of(model))


def compiled_for_xla(model: Any) -> bool | None:
    """Whether a model was compiled with XLA (Keras' choice if "auto"), if known."""
    return getattr(model, "jit_compile", None) if is_compiled(model) else None


def is_compiled(model: Any) -> bool:
    """Whether a model has been compiled."""
    # Keras 3 names the flag `compiled`, tf_keras `_is_compiled`.
    return bool(getattr(model, "compiled", getattr(model, "_is_compiled", False)))


def settings_of(model: Any) -> Any:
    """Returns an object that each call of `compile` makes anew; None if unknown."""
    return getattr(model, "_compile_config", None)


def _objects_of(model: Any) -> dict[str, Any]:
    return collect([*layers_of(model), *model.metrics, *leaves(_arguments(model))])


def _arguments(model: Any) -> dict[str, Any]:
    """Returns what `compile` was given; `get_compile_config` loses any lambdas.

    Tried with Keras 3.5 and 3.15, tf_keras 2.18 and 2.21.
    """
    settings = settings_of(model)
    # Keras 3 removes the optimizer when it writes the model to an `.h5` file.
    return {"optimizer": model.optimizer, **(settings.config if settings else {})}


def _recipes(model: Any) -> dict[str, Any]:
    """Returns the arguments of `compile`, with recipes for what holds variables."""
    library = library_of(model)

    def recipe(leaf: Any) -> Any:
        is_metric = isinstance(leaf, library.metrics.Metric)
        holds_variables = is_metric or hasattr(leaf, "apply_gradients")
        return Recipe.of(leaf) if holds_variables else leaf

    recipes = map_nest(recipe, _arguments(model))
    if library.__name__ == "tf_keras":
        _drop_output_names(model, recipes)
    return recipes


def _drop_output_names(model: Any, recipes: dict[str, Any]) -> None:
    """Undoes what tf_keras does to metrics of several outputs, and would do again.

    There is no public way to ask for it. Tried with tf_keras 2.18 and 2.21.
    """
    metrics = getattr(model, "compiled_metrics", None)
    is_renamed = metrics and (metrics.built or metrics._from_serialized)
    outputs = list(model.output_names or ()) if is_renamed else []
    for leaf in leaves(recipes) if len(outputs) > 1 else ():
        if isinstance(leaf, Recipe) and "name" in leaf.config:
            for output in outputs:
                leaf.config["name"] = leaf.config["name"].removeprefix(f"{output}_")


@dataclasses.dataclass(frozen=True)
class Recipe:
    """How to make an optimizer or a metric again, in another strategy's scope."""

    kind: Any
    config: dict[str, Any]
    functions: dict[str, Any]

    @classmethod
    def of(cls, made: Any) -> "Recipe":
        """How an object was made."""
        return cls(type(made), made.get_config(), functions_of(made))

    def make(self) -> Any:
        """A new object, with values of its own."""
        new = self.kind.from_config(self.config)
        give_functions(self.functions, new)
        return new


def _made(leaf: Any) -> Any:
    return leaf.make() if isinstance(leaf, Recipe) else leaf


def _copy_optimizer(old: Any, new: Any, target: Any) -> None:
    before, after = _variables(old), _variables(new)
    if [tuple(v.shape) for v in before] == [tuple(v.shape) for v in after]:
        assign_all(before, after)
        return
    warn(
        f"The state of the optimizer {old.name!r} ({len(before)} variables) does not "
        f"fit the trainable variables of model {target.name!r} ({len(after)} "
        "variables), so `fit` starts with a fresh optimizer. Compile the model after "
        "changing `trainable`."
    )


def _variables(optimizer: Any) -> list[Any]:
    # A method in the legacy optimizers of tf_keras.
    variables: Any = optimizer.variables
    found: Any = variables() if callable(variables) else variables
    return list(found)


def _compile_by_hooks(source: Any, target: Any) -> None:
    owner = next(c for c in type(source).__mro__ if "compile_from_config" in vars(c))
    if not is_library_class(owner):
        target.compile_from_config(source.get_compile_config())
        return
    warn(
        f"{type(source).__name__} overrides `compile` but not `get_compile_config` "
        "and `compile_from_config`, so its compile settings cannot be carried over "
        "to the devices: call `compile` on the `model` of the predictor before "
        "`evaluate` or `fit`, or build the model inside `mgpu.scope()`."
    )
