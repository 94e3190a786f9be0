"""The built-in model, and rows for any Keras model, equal in processes of one seed."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.benchmark.options import BUILT_IN
from keras_mgpu_strategy.models.libraries import input_spec_of
from keras_mgpu_strategy.types import Nest

layers = keras.layers


def build(name: str, seed: int = 0) -> Any:
    """Makes the built-in model with weights of this seed, or reads a Keras file."""
    if name == BUILT_IN:
        keras.utils.set_random_seed(seed)
        hidden = [layers.Dense(512, activation="relu") for _ in range(2)]
        output = layers.Dense(10, activation="softmax")
        return keras.Sequential([keras.Input((784,)), *hidden, output])
    model = keras.models.load_model(name, compile=False)
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"{name} holds a model that does not declare its inputs, so no rows can "
            "be made for it. Save it as a functional or Sequential model."
        )
    return model


def make_rows(model: Any, name: str, num_rows: int, seed: int = 0) -> Nest:
    """Random rows for a model's inputs; ValueError for unknown lengths or dtypes.

    Integers are 0 or 1, or any that all embeddings of the model know.
    """
    rng = np.random.default_rng(seed)
    num_ids = known_ids(model) or 2

    def rows(leaf: Any) -> np.ndarray:
        shape, dtype = leaf.shape[1:].as_list(), np.dtype(leaf.dtype.as_numpy_dtype)
        if None in shape or dtype.kind not in "fiub":
            raise ValueError(
                f"{name} takes an input of shape {shape} and dtype {leaf.dtype.name}, "
                "for which no random rows can be made. Expected known axes and numbers."
            )
        if dtype.kind == "f":
            return rng.random((num_rows, *shape), np.float32).astype(dtype, copy=False)
        return rng.integers(0, num_ids, (num_rows, *shape)).astype(dtype)

    return tf.nest.map_structure(rows, input_spec_of(model))


def known_ids(model: Any) -> int | None:
    """How many integers all embeddings of a model know; None if it has none."""
    embeddings = [x for x in model.layers if isinstance(x, layers.Embedding)]
    return min((embedding.input_dim for embedding in embeddings), default=None)
