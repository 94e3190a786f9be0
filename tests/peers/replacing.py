"""Keras' `predict`, replaced by Predictors'.

Guarantees:

* Only `predict` and `predict_on_batch` are replaced: everything else in a test runs
  as in Keras, outside any strategy.
* A call is answered by one Predictor for each number of replicas, whose results must
  agree; what calls change in a model (states of random seeds) stays changed.
"""

import contextlib
from collections.abc import Iterator

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu

METHODS = ("predict", "predict_on_batch")
_TRAINER = next(cls for cls in keras.Model.__mro__ if "predict" in vars(cls))


class CannotShareError(Exception):
    """A call that can be answered only once: it reads a generator or calls back."""


class AsModel(keras.Model):
    """A layer as a model: Keras' tests also predict with layers that are no models."""

    def __init__(self, layer):
        super().__init__()
        self.layer = layer

    def call(self, inputs):
        return self.layer(inputs)


class OnDevices:
    """A Keras model under a strategy, while it predicts.

    Few models in tests have a configuration from which to make a copy. So the variables
    of the model itself are mirrored during a call.

    Args:
        model: A Keras model, built or not.
        strategy: Where it is to predict.
    """

    def __init__(self, model, strategy: tf.distribute.Strategy):
        self._model = model if isinstance(model, keras.Model) else AsModel(model)
        self._strategy = strategy
        self._copies: dict[int, tf.Variable] = {}
        self._predictor = None

    def __call__(self, name, *args, **kwargs):
        with self._mirrored(self._model.variables):
            if self._predictor is None:
                self._predictor = mgpu.Predictor(self._model)
            assert self._predictor.strategy is self._strategy
            return getattr(self._predictor, name)(*args, **kwargs)

    @contextlib.contextmanager
    def _mirrored(self, variables) -> Iterator[None]:
        # Keras has no public way to the variable inside its own. `_value` was tried
        # with Keras 3.15.
        originals = [variable._value for variable in variables]
        # Read here, since variables of others cannot be read inside the scope.
        values = [original.read_value() for original in originals]
        try:
            with self._strategy.scope():
                for given in zip(variables, originals, values, strict=True):
                    given[0]._value = self._copy(*given)
                yield
        finally:
            for variable, original in zip(variables, originals, strict=True):
                original.assign(variable._value.read_value())
                variable._value = original

    def _copy(self, variable, original, value) -> tf.Variable:
        if id(variable) not in self._copies:
            self._copies[id(variable)] = tf.Variable(
                value,
                trainable=variable.trainable,
                aggregation=original.aggregation,
                synchronization=original.synchronization,
            )
        copy = self._copies[id(variable)]
        copy.assign(value)
        return copy


class Ours:
    """Predicts in the place of Keras.

    Args:
        strategies: One for each number of replicas to predict with.

    Attributes:
        num_calls: How often a model was asked to predict.
    """

    def __init__(self, strategies: list[tf.distribute.Strategy]):
        self.num_calls = 0
        self._strategies = strategies
        self._kept = {}

    @contextlib.contextmanager
    def in_place_of_keras(self) -> Iterator[None]:
        """Inside it, Keras' models predict with this package."""
        with pytest.MonkeyPatch.context() as patch:
            for name in METHODS:
                patch.setattr(_TRAINER, name, self._method(name))
            yield

    def _method(self, name):
        def predict(model, *args, **kwargs):
            self.num_calls += 1
            if len(self._strategies) > 1 and not _can_repeat(*args, **kwargs):
                raise CannotShareError
            # The model is kept too, so that no other model gets its id.
            places = [OnDevices(model, strategy) for strategy in self._strategies]
            _, places = self._kept.setdefault(id(model), (model, places))
            results = [place(name, *args, **kwargs) for place in places]
            for result in results[1:]:
                _assert_close(result, results[0])
            return results[-1]

        return predict


def _can_repeat(*args, **kwargs) -> bool:
    given = [*args, *kwargs.values()]
    once = any(isinstance(value, Iterator) for value in given)
    return not once and not kwargs.get("callbacks")


def _assert_close(result, expected) -> None:
    tf.nest.assert_same_structure(result, expected)
    pairs = zip(tf.nest.flatten(result), tf.nest.flatten(expected), strict=True)
    for mine, theirs in pairs:
        np.testing.assert_allclose(mine, theirs, rtol=1e-5, atol=1e-6)
