"""The models of the conformance matrix, each with rows to feed it.

`tf.keras` is tf_keras if the environment has TF_USE_LEGACY_KERAS=1, else Keras 3.
"""

from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

keras = tf.keras
layers = keras.layers


class NeverEmpty(layers.Layer):
    """Passes its input on; fails if it is called on 0 rows."""

    def call(self, inputs):
        if inputs.shape[0] is None:  # an op that would keep a model from being frozen
            rows = tf.shape(inputs)[0]
            tf.debugging.assert_greater(rows, 0, "a replica ran on 0 rows")
        if inputs.shape[0] == 0:
            raise AssertionError("a replica was traced on 0 rows")
        return tf.identity(inputs)


class FirstRow(layers.Layer):
    """Reads row 0, which an empty batch does not have."""

    def call(self, inputs):
        return inputs + 0.0 * inputs[0]


def _images(shape: tuple[int, ...]) -> Callable[[int], np.ndarray]:
    def make(num_rows: int) -> np.ndarray:
        return np.random.default_rng(1).random((num_rows, *shape), dtype=np.float32)

    return make


def _tokens(num_rows: int) -> np.ndarray:
    return np.random.default_rng(2).integers(0, 20, (num_rows, 7)).astype(np.int32)


def _chain(shape: tuple[int, ...], *chain: Any) -> keras.Model:
    inputs = keras.Input(shape)
    outputs = NeverEmpty()(inputs)
    for layer in chain:
        outputs = layer(outputs)
    return keras.Model(inputs, outputs)


def _attention() -> keras.Model:
    inputs = keras.Input((6, 8))
    checked = NeverEmpty()(inputs)
    return keras.Model(inputs, layers.MultiHeadAttention(2, 4)(checked, checked))


def _masked() -> keras.Model:
    inputs = keras.Input((7,), dtype="int32")
    embedded = layers.Embedding(20, 5, mask_zero=True)(NeverEmpty()(inputs))
    return keras.Model(inputs, layers.LSTM(4)(embedded))


def _residual() -> keras.Model:
    inputs = keras.Input((6,))
    checked = NeverEmpty()(inputs)
    return keras.Model(inputs, layers.Add()([checked, layers.Dense(6)(checked)]))


def _two_inputs() -> keras.Model:
    left, right = keras.Input((4,), name="left"), keras.Input((3,), name="right")
    joined = layers.Concatenate()([NeverEmpty()(left), NeverEmpty()(right)])
    return keras.Model([left, right], layers.Dense(2)(joined))


def _dict_output() -> keras.Model:
    inputs = keras.Input((5,))
    checked = NeverEmpty()(inputs)
    outputs = {"b": layers.Dense(2)(checked), "a": layers.Dense(1)(checked)}
    return keras.Model(inputs, outputs)


def _maps() -> keras.Model:
    """An output of the size of the image, one of half of it, and classes."""
    inputs = keras.Input((8, 8, 3))
    same = layers.Conv2D(4, 3, padding="same", activation="tanh")(NeverEmpty()(inputs))
    half = layers.Conv2D(2, 3, strides=2, padding="same")(same)
    classes = layers.Dense(3, activation="softmax")(layers.Flatten()(half))
    return keras.Model(inputs, {"same": same, "half": half, "classes": classes})


def _nested() -> keras.Model:
    """The outputs of `OUTPUTS` are inside the inner model, and at the end."""
    inside, outside = keras.Input((6, 6, 3)), keras.Input((8, 8, 3))
    normal = layers.BatchNormalization(name="normal")(layers.Conv2D(4, 3)(inside))
    inner = keras.Model(inside, layers.Flatten()(normal), name="inner")
    seen = inner(layers.Conv2D(3, 3)(NeverEmpty()(outside)))
    return keras.Model(outside, layers.Dense(2, name="head")(seen))


def _two_rows(num_rows: int) -> list[np.ndarray]:
    return [_images((4,))(num_rows), _images((3,))(num_rows)]


ZOO: dict[str, tuple[Callable[[], keras.Model], Callable[[int], Any]]] = {
    "dense": (
        lambda: _chain((5,), layers.Dense(8, activation="relu"), layers.Dense(3)),
        _images((5,)),
    ),
    "conv1d": (lambda: _chain((8, 3), layers.Conv1D(4, 3)), _images((8, 3))),
    "conv2d": (lambda: _chain((8, 8, 3), layers.Conv2D(4, 3)), _images((8, 8, 3))),
    "conv3d": (
        lambda: _chain((4, 5, 6, 2), layers.Conv3D(3, 2)),
        _images((4, 5, 6, 2)),
    ),
    "separable_conv": (
        lambda: _chain((8, 8, 3), layers.SeparableConv2D(4, 3)),
        _images((8, 8, 3)),
    ),
    "conv_bn": (
        lambda: _chain((8, 8, 3), layers.Conv2D(4, 3), layers.BatchNormalization()),
        _images((8, 8, 3)),
    ),
    "time_distributed_conv": (
        lambda: _chain((3, 6, 6, 2), layers.TimeDistributed(layers.Conv2D(3, 3))),
        _images((3, 6, 6, 2)),
    ),
    "conv_lstm": (
        lambda: _chain((3, 6, 6, 2), layers.ConvLSTM2D(3, 3)),
        _images((3, 6, 6, 2)),
    ),
    "lstm": (lambda: _chain((6, 3), layers.LSTM(4)), _images((6, 3))),
    "gru": (lambda: _chain((6, 3), layers.GRU(4)), _images((6, 3))),
    "bidirectional": (
        lambda: _chain((6, 3), layers.Bidirectional(layers.LSTM(4))),
        _images((6, 3)),
    ),
    "attention": (_attention, _images((6, 8))),
    "masked_embedding": (_masked, _tokens),
    "residual": (_residual, _images((6,))),
    "two_inputs": (_two_inputs, _two_rows),
    "dict_output": (_dict_output, _images((5,))),
    "maps": (_maps, _images((8, 8, 3))),
    "outputs_of_layers": (_nested, _images((8, 8, 3))),
    "first_row": (
        lambda: _chain((5,), FirstRow(), layers.Dense(3)),
        _images((5,)),
    ),
}


def other(name: str) -> keras.Model:
    """A model of another architecture with the inputs and outputs of a model."""
    model = build(name, seed=7)
    if name in OUTPUTS:
        return model
    if type(model.output) is dict:
        outputs = {key: layers.Rescaling(0.5)(x) for key, x in model.output.items()}
        return keras.Model(model.inputs, outputs)
    outputs = layers.Activation("tanh")(layers.Dropout(0.5)(model.output))
    return keras.Model(model.inputs, outputs)


OUTPUTS = {"outputs_of_layers": ("inner/normal", "head")}
"""Names of the layers whose outputs are the results, where not the model's own."""


def plain(name: str, model: keras.Model) -> keras.Model:
    """A hand-made plain model of what `OUTPUTS` names; otherwise the model itself."""
    if name not in OUTPUTS:
        return model
    inner = model.get_layer("inner")
    part = keras.Model(inner.input, inner.get_layer("normal").output)
    before = keras.Model(model.input, model.layers[-3].output)
    normal = part(before(model.input))
    return keras.Model(model.input, {"inner/normal": normal, "head": model.output})


def build(name: str, seed: int = 3) -> keras.Model:
    """The plain model, outside any scope, with weights that depend on the seed."""
    keras.utils.set_random_seed(0)
    model = ZOO[name][0]()
    # Fresh weights hide mistakes: biases are 0 and moving averages are 0 and 1.
    random = np.random.default_rng(seed)
    model.set_weights([w + 0.1 * random.random(w.shape) for w in model.get_weights()])
    return model


def rows(name: str, num_rows: int) -> Any:
    """Input rows of the model; fewer rows are a prefix of more."""
    return ZOO[name][1](num_rows)
