"""`predict_proba` for any Keras model, with nothing to set up.

Guarantee: results are those of the model's layers and weights at the time of the call.
"""

from typing import Any, Literal

from keras_mgpu_strategy import models
from keras_mgpu_strategy.devices.scope import active_strategy
from keras_mgpu_strategy.engines.options import Compile
from keras_mgpu_strategy.predictor import Predictor
from keras_mgpu_strategy.runs.callbacks import Verbose
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.system.tracebacks import short_traceback
from keras_mgpu_strategy.types import Nest

_KEPT_AS = "_keras_mgpu_strategy_predictor"


@short_traceback
def predict_proba(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    verbose: Verbose = "auto",
    steps: int | None = None,
    callbacks: Any = None,
    *,
    from_logits: bool = False,
    strict: bool = False,
    compile: Compile = "auto",
    jit_compile: bool | Literal["auto"] = "auto",
    pad: Pad | None = None,
) -> Nest:
    """Class probabilities of any Keras model, on every device.

    Keeps one Predictor per model, for as long as the model lives, and makes a new one
    if layers, or attributes that their code has set, were added, removed or changed,
    and after `compile`, which is when Keras too notices changed settings of its layers.
    The weights of a model that had to be rebuilt are compared at each call, since it
    may have been trained in between, and those that differ are copied; make a
    `Predictor` to avoid that.

    Args:
        model: A Keras model.
        x, batch_size, verbose, steps, callbacks, from_logits, strict, pad: As in
            `Predictor.predict_proba`.
        compile, jit_compile: As in `Predictor`.

    Returns:
        As in `Predictor.predict_proba`.

    Raises:
        TypeError: As in `Predictor`.
        ValueError: As in `Predictor` and `Predictor.predict_proba`.
        RuntimeError: As in `Predictor`.
    """
    how = {"compile": compile, "jit_compile": jit_compile}
    predictor, follower = _predictor_of(model, how)
    try:
        return predictor.predict_proba(
            x,
            batch_size,
            verbose,
            steps,
            callbacks,
            from_logits=from_logits,
            strict=strict,
            pad=pad,
        )
    finally:  # after the run, which builds a model not built yet
        # In the model's own dict: a weak mapping would never release it, since the
        # Predictor of a model built in scope holds that very model.
        vars(model)[_KEPT_AS] = predictor, follower, _made_of(model, how)


def _predictor_of(model: Any, how: dict[str, Any]) -> tuple[Predictor, models.Follower]:
    """The Predictor of a model with its weights of now, and what brings them."""
    if isinstance(model, list | tuple):
        raise TypeError(
            f"mgpu.predict_proba received a {type(model).__name__} of {len(model)}, "
            "expected one Keras model. Make a Predictor of several, once, and call its "
            "predict_proba."
        )
    *kept, made_of = getattr(model, "__dict__", {}).get(_KEPT_AS, (None,))
    strategy = active_strategy()
    is_new = not kept or made_of != _made_of(model, how)
    if is_new or strategy not in (None, kept[0].strategy):
        return Predictor(model, **how), models.Follower()
    predictor, follower = kept
    if predictor.model is not model:
        follower.follow(model, predictor.model)
    return predictor, follower


def _made_of(model: Any, how: dict[str, Any]) -> list[Any]:
    """Layers, attributes, how many variables, Keras' compiled function, options."""
    # Made here if there is none, so that a different one shows that Keras dropped it.
    model.make_predict_function()
    layers = models.layers_of(model)
    choice = [how, models.compiled_for_xla(model)]
    num_variables = len(models.variables_of(model))  # layers get more by LoRA
    # The first is the model, which must not hold itself.
    attributes = [models.attributes_in_process(layer) for layer in layers]
    return [layers[1:], attributes, num_variables, choice, model.predict_function]
