"""Specs -> Keras models, and rows to feed them."""

from typing import Any

import keras
import numpy as np
import tensorflow as tf

from tests.properties.grammar import FLOATS, NUM_IDS
from tests.properties.nests import nested
from tests.properties.spec import AXES, Axis, Graph, Input, Node

layers = keras.layers
OUTPUT_NAMES = ("out", "also", "more", *(f"d{number}" for number in range(9)))


class BatchMean(layers.Layer):
    """Mixes the rows of a batch, which is an error; no graph is drawn with it."""

    def call(self, inputs):
        return inputs - tf.reduce_mean(inputs, axis=0, keepdims=True)


def _padded(node: Node, rank: int, **options: Any) -> keras.Layer:
    kind = layers.Conv1D if rank == 2 else layers.Conv2D
    return kind(node.size, 2, activation="tanh", dtype=node.dtype, **options)


def _by_rank(*kinds: type, **options: Any) -> Any:
    """A layer for sequences or one for images."""
    return lambda node, rank: kinds[rank - 2](dtype=node.dtype, **options)


def _plain(kind: type, **options: Any) -> Any:
    return lambda node, rank: kind(dtype=node.dtype, **options)


def _sized(kind: type, **options: Any) -> Any:
    return lambda node, rank: kind(node.size, dtype=node.dtype, **options)


def _embedding(**options: Any) -> Any:
    return lambda node, rank: layers.Embedding(
        NUM_IDS, node.size, dtype=node.dtype, **options
    )


def _cast(node: Node, rank: int) -> Any:
    return lambda tensor: keras.ops.cast(tensor, node.dtype)


def _attention(node: Node, rank: int) -> Any:
    attention = layers.MultiHeadAttention(1, node.size)
    return lambda tensor: attention(tensor, tensor)


_MAKERS = {
    "dense": _sized(layers.Dense, activation="tanh"),
    "tanh": _plain(layers.Activation, activation="tanh"),
    "relu": _plain(layers.ReLU),
    "flatten": _plain(layers.Flatten),
    "scale": _plain(layers.Rescaling, scale=1 / 8),
    "cast_float": _cast,
    "cast": _cast,
    "cast_byte": _cast,
    "repeat": _sized(layers.RepeatVector),
    "add": _plain(layers.Add),
    "multiply": _plain(layers.Multiply),
    "maximum": _plain(layers.Maximum),
    "concatenate": _plain(layers.Concatenate),
    "embedding": _embedding(),
    "masked_embedding": _embedding(mask_zero=True),
    "global_average": _by_rank(
        layers.GlobalAveragePooling1D, layers.GlobalAveragePooling2D
    ),
    "global_max": _by_rank(layers.GlobalMaxPooling1D, layers.GlobalMaxPooling2D),
    "max_pool": _by_rank(layers.MaxPooling1D, layers.MaxPooling2D, padding="same"),
    "average_pool": _by_rank(
        layers.AveragePooling1D, layers.AveragePooling2D, pool_size=2, padding="same"
    ),
    "convolution": lambda node, rank: _padded(node, rank, padding="same"),
    "cut_convolution": _padded,
    "batch_norm": _plain(layers.BatchNormalization),
    # A row whose features are nearly equal would make rounding errors large.
    "layer_norm": _plain(layers.LayerNormalization, epsilon=0.1),
    "attention": _attention,
    "simple_rnn": _sized(layers.SimpleRNN),
    "gru": _sized(layers.GRU),
    "lstm": _sized(layers.LSTM),
    "lstm_sequence": _sized(layers.LSTM, return_sequences=True),
    "batch_mean": _plain(BatchMean),
}


def build(graph: Graph) -> keras.Model:
    """The model, with weights that depend only on the graph.

    It is made under the caller's strategy, if any.
    """
    inputs = [_input(spec) for spec in graph.inputs]
    tensors, called = list(inputs), []
    for node in graph.nodes:
        sources = [tensors[source] for source in node.sources]
        shared = node.shares
        layer = called[shared] if shared is not None else _layer(node, sources[0])
        called.append(layer)
        tensors.append(layer(sources if len(sources) > 1 else sources[0]))
    names = [spec.name for spec in graph.inputs]
    outputs = [tensors[number] for number in graph.outputs]
    output_names = list(OUTPUT_NAMES[: len(outputs)])
    model = keras.Model(
        nested(graph.takes, names, inputs), nested(graph.gives, output_names, outputs)
    )
    model.set_weights(_weights(model, graph.seed))
    return model


def _input(spec: Input) -> Any:
    shape = [axis if isinstance(axis, int) else None for axis in spec.shape]
    return keras.Input(shape, dtype=spec.dtype, name=spec.name)


def _layer(node: Node, source: Any) -> Any:
    return _MAKERS[node.op](node, len(source.shape) - 1)


def _weights(model: keras.Model, seed: int) -> list[np.ndarray]:
    """Small kernels; all else above 0, as moving variances must be."""
    random = np.random.default_rng(seed)
    shapes = [weight.shape for weight in model.get_weights()]
    return [
        random.uniform(-1, 1, shape) / np.sqrt(np.prod(shape[:-1]))
        if len(shape) > 1
        else random.uniform(0.1, 0.6, shape)
        for shape in shapes
    ]


def arrays(graph: Graph, lengths: tuple[int, int], num_rows: int) -> list[np.ndarray]:
    """Rows for each input, as they are passed."""
    sizes = dict(zip(AXES, lengths, strict=True))
    random = np.random.default_rng(graph.seed)
    return [_array(spec, sizes, num_rows, random) for spec in graph.inputs]


def _array(
    spec: Input, sizes: dict[str, int], num_rows: int, random: np.random.Generator
) -> np.ndarray:
    shape = (num_rows, *(_length(axis, sizes) for axis in spec.shape))
    if spec.given in (*FLOATS, "float16"):
        values = random.integers(-16, 17, shape) / 16  # exact in all of them
    else:
        is_id = spec.dtype not in (*FLOATS, "bool")
        values = random.integers(0, NUM_IDS if is_id else 2, shape)
    return values.astype(spec.given)


def _length(axis: Axis, sizes: dict[str, int]) -> int:
    return axis if isinstance(axis, int) else sizes[axis]
