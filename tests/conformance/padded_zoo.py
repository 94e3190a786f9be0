"""Models that ignore padding, rows of unequal length, and what each row gives alone.

`tf.keras` is tf_keras if the environment has TF_USE_LEGACY_KERAS=1, else Keras 3.
"""

import functools

import numpy as np
import tensorflow as tf

import keras_mgpu_strategy as mgpu

keras = tf.keras
layers = keras.layers

MOST_ROWS = 61
LONGEST = 23


def lengths(num_rows):
    """From 1 to `LONGEST`, short ones more often; the longest is the row of index 5."""
    sizes = np.arange(1, LONGEST + 1)
    weights = 1 / sizes / np.sum(1 / sizes)
    drawn = np.random.default_rng(5).choice(sizes, MOST_ROWS, p=weights)
    drawn[5] = LONGEST
    return drawn[:num_rows]


def _ids(num_rows, first=1):
    random = np.random.default_rng(6)
    return [random.integers(first, 30, n).astype(np.int32) for n in lengths(num_rows)]


def _numbers(num_rows):
    random = np.random.default_rng(7)
    return [random.random((n, 3), np.float32) for n in lengths(num_rows)]


def _named(num_rows):
    ids = _ids(num_rows, first=0)
    return {"input_ids": ids, "attention_mask": [np.ones_like(row) for row in ids]}


def _beside(num_rows):
    """A second input that does not vary."""
    fixed = np.random.default_rng(8).random((num_rows, 2), np.float32)
    return {"tokens": _ids(num_rows), "fixed": fixed}


def _embedded(inputs):
    return layers.Embedding(30, 8, mask_zero=True)(inputs)


def _lstm():
    inputs = keras.Input((None,), dtype="int32")
    seen = layers.LSTM(6)(_embedded(inputs))
    return keras.Model(inputs, layers.Dense(3, activation="softmax")(seen))


def _masking():
    inputs = keras.Input((None, 3))
    seen = layers.GRU(5)(layers.Masking(-1.0)(inputs))
    return keras.Model(inputs, layers.Dense(2)(seen))


def _tagger():
    """One result per token, and one per row."""
    inputs = keras.Input((None,), dtype="int32")
    seen = layers.Bidirectional(layers.LSTM(4, return_sequences=True))(
        _embedded(inputs)
    )
    tags = layers.Dense(4, activation="softmax", name="tags")(seen)
    whole = layers.Dense(2, name="whole")(layers.GlobalAveragePooling1D()(seen))
    return keras.Model(inputs, {"tags": tags, "whole": whole})


def _pooled(values, mask):
    mask = tf.cast(mask, tf.float32)[..., None]
    return tf.reduce_sum(values * mask, 1) / tf.reduce_sum(mask, 1)


def _transformer():
    """Attention with a mask that is an input."""
    ids = keras.Input((None,), dtype="int32", name="input_ids")
    mask = keras.Input((None,), dtype="int32", name="attention_mask")
    x = layers.Embedding(30, 8)(ids)
    wide = layers.Lambda(lambda m: tf.cast(m, tf.bool)[:, None, :])(mask)
    seen = layers.MultiHeadAttention(2, 4)(x, x, attention_mask=wide)
    x = layers.LayerNormalization()(layers.Add()([x, seen]))
    row = layers.Lambda(lambda pair: _pooled(*pair), output_shape=(8,))([x, mask])
    outputs = layers.Dense(3, activation="softmax")(row)
    return keras.Model({"input_ids": ids, "attention_mask": mask}, outputs)


def _two():
    tokens = keras.Input((None,), dtype="int32", name="tokens")
    fixed = keras.Input((2,), name="fixed")
    joined = layers.Concatenate()([layers.LSTM(4)(_embedded(tokens)), fixed])
    return keras.Model({"tokens": tokens, "fixed": fixed}, layers.Dense(3)(joined))


ZOO = {
    "lstm": (_lstm, _ids, 0),
    "tagger": (_tagger, _ids, 0),
    "transformer": (_transformer, _named, {"input_ids": 7, "attention_mask": 0}),
    "masking": (_masking, _numbers, -1.0),
    "beside": (_two, _beside, 0),
}
"""Model, rows, and what they are padded with."""


@functools.cache
def model_of(name):
    """The plain model, outside any scope, with weights that hide no mistakes."""
    keras.utils.set_random_seed(0)
    model = ZOO[name][0]()
    random = np.random.default_rng(3)
    model.set_weights([w + 0.3 * random.random(w.shape) for w in model.get_weights()])
    return model


def rows(name, num_rows):
    """Rows of a model; fewer are a prefix of more."""
    return ZOO[name][1](num_rows)


def pad(name, **options):
    """How the rows of a model are padded: to few lengths, in windows of 16 rows."""
    few = {"lengths": [4, 12, LONGEST], "max_tokens": 64, "window": 16}
    return mgpu.Pad(**{"value": ZOO[name][2], **few, **options})


@functools.cache
def expected(name):
    """What the plain model gives for each row alone, unpadded: one nest per row."""
    model, given = model_of(name), rows(name, MOST_ROWS)
    spec = tf.nest.map_structure(
        lambda t: tf.TensorSpec((1, *t.shape[1:]), t.dtype), model.input
    )
    step = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    return [step(alone(given, row)) for row in range(MOST_ROWS)]


def assert_same(found, name, message):
    """Checks results, one nest per row, against those of each row alone."""
    for row, (mine, reference) in enumerate(zip(found, expected(name), strict=False)):
        tf.nest.assert_same_structure(mine, reference)
        pairs = zip(tf.nest.flatten(mine), tf.nest.flatten(reference), strict=True)
        for array, tensor in pairs:
            said = f"{name}, row {row}, {message}"
            assert array.dtype == np.float32, said
            assert array.shape == tensor.shape[1:], said
            np.testing.assert_allclose(array, tensor[0], 1e-5, 1e-5, err_msg=said)


def by_row(outputs):
    """Arrays and ragged tensors of all rows -> one nest per row."""
    leaves = tf.nest.flatten(outputs)
    split = [leaf if isinstance(leaf, np.ndarray) else _split(leaf) for leaf in leaves]
    return [tf.nest.pack_sequence_as(outputs, row) for row in zip(*split, strict=True)]


def _split(ragged):
    assert isinstance(ragged, tf.RaggedTensor)
    return [row.numpy() for row in ragged]


def alone(given, row):
    """A batch of one row."""
    if isinstance(given, dict):
        return {name: tf.constant(part[row][None]) for name, part in given.items()}
    return tf.constant(given[row][None])
