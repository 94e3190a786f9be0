"""The models of the suite; the same seed gives the same weights in every process."""

from collections.abc import Callable
from typing import Any

import keras

from keras_mgpu_strategy.benchmark import rows

layers = keras.layers
# Their annotations lack the None that their documentation allows.
applications: Any = keras.applications


def build(name: str, seed: int) -> Any:
    """Makes a model of the suite, or reads a Keras file."""
    if name not in BUILDERS:
        return rows.build(name, seed)
    keras.utils.set_random_seed(seed)
    return BUILDERS[name]()


def _sequential(*parts: Any) -> Any:
    return keras.Sequential(list(parts))


def _tiny() -> Any:
    return _sequential(
        keras.Input((20,)),
        layers.Dense(16, activation="relu"),
        layers.Dense(1, activation="sigmoid"),
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
    "cnn": _cnn,
    "resnet50": _resnet50,
    "mobilenet": _mobilenet,
    "lstm": _lstm,
    "transformer": _transformer,
    "big_outputs": _big_outputs,
    "two_inputs": _two_inputs,
}
