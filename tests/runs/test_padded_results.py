"""Results for rows of unequal length, compared with those of each row alone."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu

pytestmark = pytest.mark.filterwarnings(
    r"ignore:Layer '.*' \(of type .*\) was passed an input with a mask"
)

RANDOM = np.random.default_rng(0)
ROWS = [RANDOM.integers(1, 50, n) for n in RANDOM.integers(1, 24, 90)]
PAD = mgpu.Pad(window=32)


def encoder():
    """An output for each row, one for each token, and one without an axis of values."""
    layers = keras.layers
    inputs = keras.Input((None,), dtype="int32", name="x")
    x = layers.Embedding(50, 8, mask_zero=True)(inputs)
    x = layers.LSTM(6, return_sequences=True)(x)
    outputs = {
        "label": layers.Dense(1, name="label")(layers.GlobalAveragePooling1D()(x)),
        "tags": layers.Dense(3, name="tags")(x),
    }
    return keras.Model(inputs, outputs)


@pytest.fixture(scope="module")
def model():
    keras.utils.set_random_seed(1)
    return encoder()


@pytest.fixture(scope="module")
def predictor(model, strategies):
    with strategies[2].scope():
        return mgpu.Predictor(model)


@pytest.fixture(scope="module")
def alone(model):
    return [
        {name: np.asarray(x)[0] for name, x in model(row[None]).items()} for row in ROWS
    ]


def assert_each(results, expected, of=lambda x: x):
    assert isinstance(results["tags"], tf.RaggedTensor)
    assert len(results["label"]) == results["tags"].shape[0] == len(expected)
    for index, row in enumerate(expected):
        for name in row:
            found = np.asarray(results[name][index])
            np.testing.assert_allclose(found, of(row[name]), rtol=1e-5, atol=1e-6)


def softmax(logits):
    if logits.shape[-1] == 1:
        return 1 / (1 + np.exp(-logits))
    parts = np.exp(logits - logits.max(-1, keepdims=True))
    return parts / parts.sum(-1, keepdims=True)


def classes(logits):
    return logits > 0 if logits.shape[-1] == 1 else logits.argmax(-1)


def test_results_are_those_of_each_row_alone(predictor, alone):
    assert "'tags': (" in repr(next(predictor.predict_iter(ROWS, pad=PAD)))
    found = predictor.predict_proba(ROWS, from_logits=True, pad=PAD)
    assert_each(found, alone, softmax)
    found = predictor.predict_classes(ROWS, from_logits=True, pad=PAD)
    assert_each(found, alone, classes)
    assert_each(predictor.predict_on_batch(ROWS[:7], pad=PAD), alone[:7])


def test_the_best_classes_of_each_token(model, alone):
    best = mgpu.Predictor(model, outputs="tags")
    found = best.predict_top_k(ROWS, 2, pad=PAD)
    for index, row in enumerate(alone):
        order = np.argsort(-row["tags"], axis=-1)[:, :2]
        np.testing.assert_array_equal(found["classes"][index], order)


def test_results_of_batches_have_their_rows(predictor, alone):
    ends = [3, 43, 44, 90]
    places = [*zip([0, *ends], ends, strict=False)]
    for make in (
        lambda rows: rows,
        lambda rows: tf.ragged.constant([row.tolist() for row in rows]),
        lambda rows: (rows, np.zeros(len(rows))),
    ):
        batches = [make(ROWS[start:stop]) for start, stop in places]
        results = predictor.predict_batches(batches, pad=PAD)
        for result, (start, stop) in zip(results, places, strict=True):
            assert_each(result, alone[start:stop])


class Seen(keras.callbacks.Callback):
    def __init__(self):
        super().__init__()
        self.outputs = []

    def on_predict_batch_end(self, batch, logs=None):
        self.outputs.append(dict(logs))  # Keras takes a dict apart


def test_callbacks_see_results_in_batches(predictor, alone):
    seen = Seen()
    predictor.predict(ROWS, batch_size=16, callbacks=[seen], pad=PAD)
    assert [len(part["label"]) for part in seen.outputs] == [16] * 5 + [10]
    for index, row in enumerate(alone[16:32]):
        # Keras may pad what it passes to callbacks.
        tags = np.asarray(seen.outputs[1]["tags"][index])[: len(row["tags"])]
        np.testing.assert_allclose(tags, row["tags"], rtol=1e-5, atol=1e-6)


def test_ensembles_and_dtypes(model, alone):
    other = encoder()
    found = mgpu.Predictor([model, other], output_dtype="float64").predict(
        ROWS, pad=PAD
    )
    assert found["tags"].dtype == tf.float64
    means = [
        {name: (row[name] + np.asarray(x)[0]) / 2 for name, x in other(r[None]).items()}
        for row, r in zip(alone, ROWS, strict=True)
    ]
    assert_each(found, means)


def test_values_that_are_not_probabilities_are_named_by_row(predictor, alone):
    worst = max(range(90), key=lambda i: max(_outside(x) for x in alone[i].values()))
    with pytest.warns(UserWarning, match=f"in row {worst} is the worst value"):
        predictor.predict_proba(ROWS, pad=PAD)


def _outside(x):
    return max(-x.min(), x.max() - 1)


def test_strides_and_unmasked_models():
    layers = keras.layers
    inputs = keras.Input((None,), dtype="int32")
    x = layers.Conv1D(4, 3, strides=2)(layers.Embedding(50, 8)(inputs))
    model = keras.Model(inputs, x)
    predictor = mgpu.Predictor(model)
    with pytest.raises(ValueError, match="shows no sign of ignoring padding"):
        predictor.predict(ROWS, pad=PAD)
    found = predictor.predict(ROWS, pad=mgpu.Pad(unmasked=True, lengths=[12, 23]))
    for index, row in enumerate(ROWS):
        one = model(row[None])[0] if len(row) > 2 else np.zeros((0, 4))
        np.testing.assert_allclose(found[index], one, rtol=1e-5, atol=1e-6)
