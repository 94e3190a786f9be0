"""`predict_proba` for any Keras model, with nothing to set up.

Guarantee: results are those of the model's weights at the time of the call.
"""

from typing import Any

from keras_mgpu_strategy.callbacks import Verbose
from keras_mgpu_strategy.predictor import Predictor
from keras_mgpu_strategy.strategy import active_strategy
from keras_mgpu_strategy.types import Nest

_KEPT_AS = "_keras_mgpu_strategy_predictor"


def predict_proba(
    model: Any,
    x: Any,
    batch_size: int | None = None,
    verbose: Verbose = "auto",
    **arguments: Any,
) -> Nest:
    """Class probabilities of any Keras model, on every device.

    Keeps one Predictor per model, which goes when the model goes. A model that had to
    be rebuilt has its weights copied anew at each call, since it may have been trained
    in between; make a `Predictor` to save that.

    Args:
        model: A Keras model.
        x, batch_size, verbose: As in `Predictor.predict`.
        **arguments: The other arguments of `Predictor.predict_proba`.

    Returns:
        As `Predictor.predict_proba`.

    Raises:
        TypeError: As `Predictor`.
        ValueError: As `Predictor` and `Predictor.predict_proba`.
    """
    predictor = _kept_predictor(model)
    return predictor.predict_proba(x, batch_size, verbose, **arguments)


def _kept_predictor(model: Any) -> Predictor:
    # In the model's own dict: a weak mapping would never let go, for the Predictor of
    # a model built in scope holds that very model.
    state = getattr(model, "__dict__", {})
    kept: Predictor | None = state.get(_KEPT_AS)
    strategy = active_strategy()
    if kept is None or (strategy is not None and kept.strategy is not strategy):
        kept = Predictor(model)
        state[_KEPT_AS] = kept
    elif kept.model is not model:
        kept.model.set_weights(model.get_weights())
    return kept
