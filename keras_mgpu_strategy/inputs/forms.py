"""The forms in which a model is given the user's input, x alone or whole elements.

Guarantees:

* A user's `predict_step` is given elements as in Keras: those of data sets as they
  are, those of other streams in the common form of its library.
* Dtypes are as in Keras, too: floats of arrays become `keras.config.floatx()`, and so
  do those of streams in tf_keras; all others stay.
* Preprocessing is given rows in the form and dtypes of the task's own `predict`.
"""

import itertools
import os
from collections.abc import Mapping
from typing import Any

import keras
import tensorflow as tf

from keras_mgpu_strategy.element_forms import (
    OneBatch,
    as_tuples,
    packed,
)
from keras_mgpu_strategy.sources.streams import Form, inputs_of
from keras_mgpu_strategy.types import Feeding, Nest, Undeclared

ARRAYS, DATASET, STREAM = "arrays", "data set", "stream"
"""Kinds of inputs."""


def form_of(feeding: Feeding, kind: str) -> Form:
    """Returns the form in which a model is given an input, or each element of one.

    Args:
        feeding: What the model is given.
        kind: One of the kinds of inputs.
    """

    def form(given: Any) -> Nest:
        if feeding.raw:
            given = lists_as_arrays(given)
        if kind == ARRAYS:
            return packed(given) if feeding.raw or feeding.whole else given
        if feeding.whole is None:
            x = inputs_of(given)
            return packed(x) if feeding.raw else x
        if isinstance(given, OneBatch):
            x = tuple(given)
            return x if feeding.whole == "keras" else as_tuples(x)
        return given if kind == DATASET else _WHOLE[feeding.whole](given)

    return form


def declared_of(feeding: Feeding, kind: str, input_spec: Nest) -> Nest:
    """Returns what decides the dtypes of an input.

    Args:
        feeding: What the model is given.
        kind: One of the kinds of inputs.
        input_spec: What the model declares.
    """
    if feeding.raw:
        return Undeclared(None)
    if feeding.whole is None:
        return input_spec
    is_cast = kind == ARRAYS or (kind == STREAM and feeding.whole == "tf_keras")
    return Undeclared(tf.as_dtype(keras.config.floatx()) if is_cast else None)


def lists_as_arrays(nest: Nest) -> Nest:
    """Returns a nest with each list, except of paths, converted to an array.

    The preprocessors of KerasHub read lists of texts, numbers or images this way.

    Raises:
        ValueError: If a list does not make one array.
    """
    if isinstance(nest, dict):
        return {key: lists_as_arrays(inner) for key, inner in nest.items()}
    if isinstance(nest, tuple):
        inner = map(lists_as_arrays, nest)
        return type(nest)(*inner) if hasattr(nest, "_fields") else tuple(inner)
    if not isinstance(nest, list) or any(isinstance(i, os.PathLike) for i in nest):
        return nest
    try:
        with tf.device("CPU:0"):
            return tf.convert_to_tensor(nest)
    except (TypeError, ValueError) as error:
        raise ValueError(
            f"Received a list of {len(nest)} items that do not make one array "
            f"({error}). The model has a preprocessor, which reads a list as rows of "
            "one kind and shape; several inputs go into a dict or a tuple."
        ) from error


def _of_keras(element: Any) -> Nest:
    if isinstance(element, (tuple, Mapping)):
        return element
    return tuple(element) if isinstance(element, list) else (element,)


def _of_tf_keras(element: Any) -> Nest:
    x = inputs_of(element)
    rest = element[1:] if isinstance(element, (tuple, list)) else ()
    # tf_keras drops what comes after a None.
    known = list(itertools.takewhile(lambda part: part is not None, rest))
    return as_tuples((x, *known)) if known else packed(x)


_WHOLE: dict[str, Form] = {"keras": _of_keras, "tf_keras": _of_tf_keras}
