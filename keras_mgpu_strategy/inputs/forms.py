"""The forms in which a model is given the user's input, x alone or whole elements.

A user's `predict_step` and a task's preprocessing are given elements in the forms and
dtypes of Keras. Lists of strings are data for an input that is declared to take
strings; elsewhere, and if they are paths of Parquet files, they stay lists.
"""

import os
from collections.abc import Mapping
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.element_forms import OneBatch, as_tuples, is_nest, packed
from keras_mgpu_strategy.formats.by_path import lists_tables
from keras_mgpu_strategy.sources.matching import entries_by_name, with_declared_axes
from keras_mgpu_strategy.sources.streams import Form, inputs_of
from keras_mgpu_strategy.sources.targets import targets_of
from keras_mgpu_strategy.sources.wrapping import Described, Rearranged
from keras_mgpu_strategy.types import Feeding, Nest, Source, Undeclared

ARRAYS, DATASET, STREAM = "arrays", "data set", "stream"
"""Kinds of inputs."""


def form_of(feeding: Feeding, kind: str) -> Form:
    """Returns the form in which a model is given an input, or each element of one."""

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
        if kind == DATASET:
            return given
        return _of_keras(given) if feeding.whole == "keras" else _of_tf_keras(given)

    return form


def declared_of(feeding: Feeding, kind: str, input_spec: Nest) -> Nest:
    """Returns what decides the dtypes of an input of a kind."""
    if feeding.raw:
        return Undeclared(None)
    if feeding.whole is None:
        return input_spec
    is_cast = kind == ARRAYS or (kind == STREAM and feeding.whole == "tf_keras")
    return Undeclared(tf.as_dtype(keras.config.floatx()) if is_cast else None)


def with_arrays(x: Any, input_spec: Nest, feeding: Feeding) -> Any:
    """Returns what the user passed with arrays in place of lists that are data."""
    if feeding.raw:
        return lists_as_arrays(x)
    is_text = is_declared(input_spec) and not lists_tables(x)
    return _with_texts(x, input_spec) if is_text else x


def lists_as_arrays(nest: Nest) -> Nest:
    """Returns a nest with lists, except of paths, as arrays; ValueError if ragged."""
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


def is_declared(input_spec: Nest) -> bool:
    """Whether a model declares its inputs."""
    return input_spec is not None and not isinstance(input_spec, Undeclared)


def select_inputs(source: Source, input_spec: Nest) -> Source:
    """Returns a source without undeclared dict entries, which would shift inputs.

    Its spec has the declared lengths of axes, by which a run without rows has a shape.
    """
    if not is_declared(input_spec):
        return source
    names = set(entries_by_name(input_spec))
    if isinstance(source.spec, Mapping) and names < set(source.spec):
        keys = [key for key in source.spec if key in names]
        source = Rearranged(source, lambda nest: {key: nest[key] for key in keys})
    spec = with_declared_axes(source.spec, input_spec)
    return source if spec == source.spec else Described(source, spec)


def in_array_form(source: Source, feeding: Feeding) -> Source:
    """Returns rows of files in the form in which a model is given arrays."""
    is_listed = isinstance(source.spec, list | tuple)
    is_packed = is_listed and (feeding.raw or feeding.whole is not None)
    return Rearranged(source, packed) if is_packed else source


def _of_keras(element: Any) -> Nest:
    if isinstance(element, tuple | Mapping):
        return element
    return tuple(element) if isinstance(element, list) else (element,)


def _of_tf_keras(element: Any) -> Nest:
    x, known = inputs_of(element), targets_of(element)
    return as_tuples((x, *known)) if known else packed(x)


def _with_texts(x: Any, declared: Nest) -> Any:
    # An open .npz or HDF5 file is a Mapping too, but reading it to know is too much.
    if not isinstance(x, dict | list | tuple):
        return x
    entries = entries_by_name(declared)
    if isinstance(x, dict):
        known = {key: _with_texts(x[key], entries[key]) for key in x if key in entries}
        return {**x, **known}
    if not is_nest(declared):
        is_text = declared.dtype == tf.string and _holds_text(x)
        return np.array(x, dtype=object) if is_text else x
    if len(entries) == 1 and _holds_text(x):
        return _with_texts(x, next(iter(entries.values())))
    if len(entries) == len(x):
        return [_with_texts(*pair) for pair in zip(x, entries.values(), strict=True)]
    return x


def _holds_text(x: Any) -> bool:
    if not isinstance(x, list | tuple) or not x:
        return False
    return all(isinstance(item, str | bytes) or _holds_text(item) for item in x)
