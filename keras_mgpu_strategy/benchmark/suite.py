"""The models of the suite, and rows for any Keras model.

Guarantees: the same seed gives the same weights and rows in every process.
"""

from collections.abc import Callable
from typing import Any

import keras
import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.benchmark import catalog
from keras_mgpu_strategy.models.libraries import input_spec_of
from keras_mgpu_strategy.types import Nest

layers = keras.layers
# Their annotations lack the None that they document.
applications: Any = keras.applications


def build(name: str, seed: int) -> Any:
    """Makes a model of the suite, or reads a Keras file.

    Args:
        name: A name of `catalog.MODELS`, or the path of a `.keras` or HDF5 file.
        seed: Seed of the weights.

    Raises:
        ValueError: If a file's model does not declare its inputs.
    """
    if name in BUILDERS:
        keras.utils.set_random_seed(seed)
        return BUILDERS[name]()
    model = keras.models.load_model(name, compile=False)
    if not getattr(model, "inputs", None):
        raise ValueError(
            f"{name} holds a model that does not declare its inputs, so no rows can "
            "be made for it. Save it as a functional or Sequential model."
        )
    return model


def make_rows(model: Any, name: str, num_rows: int, seed: int) -> Nest:
    """Random rows in the structure of the model's inputs.

    Args:
        model: A model that declares its inputs.
        name: As in `build`.
        num_rows: Number of rows.
        seed: Seed of the rows.

    Returns:
        Nest of NumPy arrays of shape `(num_rows, ...)`.

    Raises:
        ValueError: If an axis has unknown length, or a dtype is not numeric.
    """
    rng = np.random.default_rng(seed)
    known = catalog.MODELS.get(name)
    num_ids = known.num_ids if known else 2

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


def _sequential(*parts: Any) -> Any:
    return keras.Sequential(list(parts))


def _tiny() -> Any:
    return _sequential(
        keras.Input((20,)),
        layers.Dense(16, activation="relu"),
        layers.Dense(1, activation="sigmoid"),
    )


def _mlp() -> Any:
    return _sequential(
        keras.Input((784,)),
        layers.Dense(512, activation="relu"),
        layers.Dense(512, activation="relu"),
        layers.Dense(10, activation="softmax"),
    )


def _cnn() -> Any:
    return _sequential(
        keras.Input((32, 32, 3)),
        layers.Conv2D(32, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Conv2D(64, 3, activation="relu"),
        layers.MaxPooling2D(),
        layers.Flatten(),
        layers.Dense(64, activation="relu"),
        layers.Dense(10, activation="softmax"),
    )


def _resnet50() -> Any:
    return applications.ResNet50(weights=None)


def _mobilenet() -> Any:
    return applications.MobileNetV2((96, 96, 3), weights=None)


def _lstm() -> Any:
    return _sequential(
        keras.Input((32, 16)), layers.LSTM(64), layers.Dense(4, activation="softmax")
    )


def _transformer() -> Any:
    tokens = keras.Input((64,), dtype="int32")
    x = layers.Embedding(1000, 64)(tokens)
    x = layers.LayerNormalization()(x + layers.MultiHeadAttention(4, 16)(x, x))
    hidden = layers.Dense(128, activation="relu")(x)
    x = layers.LayerNormalization()(x + layers.Dense(64)(hidden))
    x = layers.GlobalAveragePooling1D()(x)
    return keras.Model(tokens, layers.Dense(10, activation="softmax")(x))


def _big_outputs() -> Any:
    return _sequential(keras.Input((32, 32, 3)), layers.Conv2D(32, 3, padding="same"))


def _two_inputs() -> Any:
    left, right = keras.Input((64,), name="left"), keras.Input((64,), name="right")
    both = layers.Dense(64, activation="relu")(layers.Concatenate()([left, right]))
    outputs = {"class": layers.Dense(10)(both), "score": layers.Dense(1)(both)}
    return keras.Model({"left": left, "right": right}, outputs)


BUILDERS: dict[str, Callable[[], Any]] = {
    "tiny": _tiny,
    "mlp": _mlp,
    "cnn": _cnn,
    "resnet50": _resnet50,
    "mobilenet": _mobilenet,
    "lstm": _lstm,
    "transformer": _transformer,
    "big_outputs": _big_outputs,
    "two_inputs": _two_inputs,
}
