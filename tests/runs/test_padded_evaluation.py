"""`evaluate(pad=)`, compared with Keras' own on rows that were padded by hand."""

import keras
import numpy as np
import pyarrow as pa
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu

RANDOM = np.random.default_rng(0)
LENGTHS = RANDOM.integers(1, 20, 150)
LABEL = RANDOM.integers(0, 3, 150)
WEIGHT = RANDOM.random(150).astype(np.float32)
PAD = mgpu.Pad(window=64)


def tokens(stop, dtype):
    return [RANDOM.integers(1, stop, n).astype(dtype) for n in LENGTHS]


ROWS, TAGS = tokens(50, "int32"), tokens(3, "int64")
WEIGHTS = [RANDOM.random(n).astype(np.float32) for n in LENGTHS]


def by_hand(rows):
    padded = np.zeros((len(rows), 25), rows[0].dtype)
    for one, row in zip(padded, rows, strict=True):
        one[: len(row)] = row
    return padded


def ragged(rows):
    kind = tf.RaggedTensor
    return kind.from_row_lengths(np.concatenate(rows), [*map(len, rows)])


def encoder(library=keras, mask_zero=True, **compiled):
    """Classes of each token, and of each row."""
    layers = library.layers
    inputs = library.Input((None,), dtype="int32")
    x = layers.Embedding(50, 8, mask_zero=mask_zero)(inputs)
    x = layers.GRU(6, return_sequences=True)(x)
    tags = layers.Dense(3, activation="softmax", name="tags")(x)
    pooled = layers.GlobalAveragePooling1D()(x)
    label = layers.Dense(3, activation="softmax", name="label")(pooled)
    return library.Model(inputs, {"tags": tags, "label": label})


def part(model, name, **options):
    library = tf_keras if isinstance(model, tf_keras.Model) else keras
    alone = library.Model(model.inputs, model.output[name])
    alone.compile(loss="sparse_categorical_crossentropy", **options)
    return alone


def assert_as_keras(model, ours, theirs, **options):
    with mgpu.scope(["CPU:0", "CPU:1"]):
        predictor = mgpu.Predictor(model)
    found = predictor.evaluate(*ours, return_dict=True, verbose=0, pad=PAD, **options)
    expected = model.evaluate(*theirs, return_dict=True, verbose=0, **options)
    assert found.keys() == expected.keys()
    for name, value in expected.items():
        np.testing.assert_allclose(found[name], value, rtol=2e-5, err_msg=name)


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_labels_of_rows(library):
    model = part(encoder(library), "label", metrics=["accuracy"])
    assert_as_keras(model, (ROWS, LABEL), (by_hand(ROWS), LABEL))
    for size in (None, 20):
        assert_as_keras(model, (ROWS, LABEL), (by_hand(ROWS), LABEL), batch_size=size)


@pytest.mark.parametrize("make", [list, ragged], ids=["lists", "ragged tensor"])
def test_labels_of_tokens(make):
    model = part(encoder(), "tags", weighted_metrics=["accuracy"])
    x, y, weights = by_hand(ROWS), by_hand(TAGS), by_hand(WEIGHTS)
    assert_as_keras(model, (ROWS, make(TAGS)), (x, y))
    given = {"sample_weight": make(WEIGHTS)}
    with mgpu.scope(["CPU:0"]):
        predictor = mgpu.Predictor(model)
    found = predictor.evaluate(ROWS, make(TAGS), verbose=0, pad=PAD, **given)
    expected = model.evaluate(x, y, verbose=0, sample_weight=weights)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def elements(rows, labels):
    return ((rows[i : i + 30], labels[i : i + 30]) for i in range(0, 150, 30))


def dataset(rows, labels):
    labels = ragged(labels) if isinstance(labels, list) else labels
    return tf.data.Dataset.from_tensor_slices((ragged(rows), labels)).batch(30)


def table(rows, labels):
    listed = [[*map(int, row)] for row in rows], [np.array(y).tolist() for y in labels]
    return pa.table(dict(zip("xy", listed, strict=True)))


@pytest.mark.parametrize("make", [elements, dataset, table])
def test_labels_that_come_with_the_rows(make):
    y, size = ("y", 30) if make is table else (None, None)
    for name, labels in (("tags", TAGS), ("label", LABEL)):
        model = part(encoder(), name)
        x = make(ROWS, labels)
        found = mgpu.Predictor(model).evaluate(x, y, size, verbose=0, pad=PAD)
        padded = by_hand(labels) if name == "tags" else labels
        expected = model.evaluate(by_hand(ROWS), padded, 30, verbose=0)
        np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_lists_may_be_labels_of_rows():
    model = part(encoder(), "label")
    model.compile(loss="categorical_crossentropy")
    y = np.eye(3, dtype=np.float32)[LABEL]
    x = table(ROWS, y)
    found = mgpu.Predictor(model).evaluate(x, "y", verbose=0, pad=PAD)
    expected = model.evaluate(by_hand(ROWS), y, verbose=0)
    np.testing.assert_allclose(found, expected, rtol=2e-5)


def test_labels_of_rows_and_tokens_together():
    model = encoder()
    loss = dict.fromkeys(["tags", "label"], "sparse_categorical_crossentropy")
    model.compile(loss=loss, metrics={"label": "accuracy"})
    y = {"tags": TAGS, "label": LABEL}
    assert_as_keras(model, (ROWS, y), (by_hand(ROWS), {**y, "tags": by_hand(TAGS)}))


def test_metrics_that_count_padding_are_refused_and_named():
    model = part(encoder(mask_zero=False), "tags", metrics=["accuracy"])
    pad = mgpu.Pad(unmasked=True)
    with pytest.raises(
        ValueError, match="would count padding, since outputs"
    ) as caught:
        mgpu.Predictor(model).evaluate(ROWS, TAGS, verbose=0, pad=pad)
    assert "loss" in str(caught.value) and "weighted_metrics" in str(caught.value)


def test_labels_that_do_not_fit_the_tokens_are_refused():
    model = part(encoder(), "tags")
    short = [*TAGS[:5], TAGS[5][:-1] if len(TAGS[5]) > 1 else [0, 0], *TAGS[6:]]
    with pytest.raises(ValueError, match="Expected one for each token of a row"):
        mgpu.Predictor(model).evaluate(ROWS, short, verbose=0, pad=PAD)
    with pytest.raises(ValueError, match="Received 150 rows in x, but 149 in y"):
        mgpu.Predictor(model).evaluate(ROWS, TAGS[:-1], verbose=0, pad=PAD)
