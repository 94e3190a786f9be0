"""Which models ignore padding, and which of their results have one value per token."""

import dataclasses
from typing import Any

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.compute.heads import Head, evaluation, head_of, identity
from keras_mgpu_strategy.models.token_counts import TokenCounts

pytestmark = pytest.mark.filterwarnings(
    r"ignore:Layer '.*' \(of type .*\) was passed an input with a mask"
)

EACH = TokenCounts()
LENGTH, LONGEST = 6, 16


def ids(side="right", length=LENGTH, longest=LONGEST):
    """A row alone, and padded among others."""
    rows = np.random.default_rng(0).integers(1, 50, (3, longest)).astype(np.int32)
    own = slice(0, length) if side == "right" else slice(longest - length, longest)
    alone = rows[:1, own].copy()
    rows[0] = 0
    rows[0, own] = alone[0]
    return alone, rows


def floats():
    alone, padded = (np.random.default_rng(1).normal(size=(50, 4))[x] for x in ids())
    padded[0, LENGTH:] = 0
    return alone.astype(np.float32), padded.astype(np.float32)


def backend_of(model, **options):
    return mgpu.Predictor(model, **options)._runner.backend


IDS = tf.TensorSpec([None, None], tf.int32)


def found(backend, padded, *lengths, spec: Any = IDS, head=identity, **how):
    how = {"side": "right", "unmasked": False} | how
    return backend.try_padded(head, spec, padded, list(lengths), **how)


def tried(model, alone, padded, head=identity, side="right", unmasked=False, **options):
    backend = backend_of(model, **options)
    head = dataclasses.replace(head, combine=backend.options.combine)
    spec = tf.nest.map_structure(
        lambda x, y: tf.TensorSpec(
            [None, None if x.shape[1] != y.shape[1] else x.shape[1], *x.shape[2:]],
            x.dtype,
        ),
        alone,
        padded,
    )
    backend.build(alone)
    head = dataclasses.replace(head, combine=backend.options.combine)
    how = {"spec": spec, "head": head, "side": side, "unmasked": unmasked}
    length = tf.nest.flatten(alone)[0].shape[1]
    return found(backend, padded, length, **how).tokens


def text_model(make, library=keras, mask_zero=True):
    inputs = library.Input((None,), dtype="int32")
    embedded = library.layers.Embedding(50, 8, mask_zero=mask_zero)(inputs)
    return library.Model(inputs, make(library.layers, embedded))


def lstm(layers, x):
    return layers.Bidirectional(layers.LSTM(4))(x)


def tags(layers, x):
    x = layers.GRU(4, return_sequences=True)(x)
    return layers.TimeDistributed(layers.Dense(3, activation="softmax"))(x)


def encoder(layers, x):
    x = layers.LSTM(6, return_sequences=True)(x)
    return {"tags": layers.Dense(3)(x), "label": layers.GlobalAveragePooling1D()(x)}


def convolution(layers, x):
    return layers.GlobalAveragePooling1D()(layers.Conv1D(4, 3, padding="same")(x))


def strided(layers, x):
    return layers.Conv1D(4, 3, strides=2)(layers.Conv1D(4, 5, strides=3)(x))


libraries = pytest.mark.parametrize("library", [keras, tf_keras])


@libraries
@pytest.mark.parametrize(
    ("make", "expected"), [(lstm, (None,)), (tags, (EACH,)), (encoder, (None, EACH))]
)
def test_masked_models_are_taken(make, expected, library):
    for side in ("right", "left"):
        assert tried(text_model(make, library), *ids(side), side=side) == expected


@libraries
def test_a_masking_layer_is_a_sign_also_in_nested_models(library):
    inputs = library.Input((None, 4))
    masked = library.layers.Masking()(inputs)
    inner = library.Model(inputs, library.layers.LSTM(3)(masked))
    outer = library.Sequential([library.Input((None, 4)), inner])
    assert tried(outer, *floats()) == (None,)


@libraries
def test_a_mask_that_gets_lost_is_found(library):
    model = text_model(convolution, library)
    with pytest.raises(
        ValueError, match="does not ignore padding, although it has"
    ) as e:
        tried(model, *ids())
    assert "its output for a row of 6 tokens differs by up to 0." in str(e.value)
    assert "pad=mgpu.Pad(..., unmasked=True)" in str(e.value)
    assert tried(model, *ids(), unmasked=True) == (None,)


def attention(library):
    x = library.Input((None,), dtype="int32", name="tokens")
    mask = library.Input((None,), dtype="bool", name="attention_mask")
    embedded = library.layers.Embedding(50, 8)(x)
    attend = library.layers.MultiHeadAttention(2, 4)
    wide = library.layers.Reshape((1, -1))(mask)
    seen = attend(embedded, embedded, attention_mask=wide)
    return library.Model({"tokens": x, "attention_mask": mask}, seen)


@libraries
def test_an_attention_mask_is_a_sign(library):
    alone, padded = ids()
    given = [{"tokens": x, "attention_mask": x > 0} for x in (alone, padded)]
    assert tried(attention(library), *given) == (EACH,)
    given[1]["attention_mask"] = np.ones_like(padded, bool)
    with pytest.raises(ValueError, match="does not ignore padding"):
        tried(attention(library), *given)


class Tagger(keras.Model):
    """A model that declares no inputs."""

    def __init__(self, mask_zero=True):
        super().__init__()
        self.embed = keras.layers.Embedding(50, 8, mask_zero=mask_zero)
        self.read = keras.layers.LSTM(4, return_sequences=True)
        self.mask_zero = mask_zero

    def get_config(self):
        return {"mask_zero": self.mask_zero}

    def call(self, x):
        return self.read(self.embed(x))


class Marked(keras.layers.Layer):
    """A layer with masks of its own."""

    def call(self, x):
        return keras.ops.one_hot(x, 50)

    def compute_mask(self, x, previous_mask=None):
        return keras.ops.not_equal(x, 0)


def test_subclassed_models_and_layers_are_searched():
    assert tried(Tagger(), *ids()) == (EACH,)
    inputs = keras.Input((None,), dtype="int32")
    model = keras.Model(inputs, keras.layers.GRU(3)(Marked()(inputs)))
    assert tried(model, *ids()) == (None,)


def unmasked_models(tmp_path):
    yield "no Masking layer, no Embedding", text_model(lstm, mask_zero=False)
    yield "no Masking layer, no Embedding", Tagger(mask_zero=False)
    masked = text_model(lstm)
    yield "functional", [masked, text_model(lstm, mask_zero=False)]
    masked.export(tmp_path / "saved", verbose=False)
    yield "Model 'saved' shows no sign", tmp_path / "saved"


@pytest.mark.filterwarnings("ignore:.*")
def test_models_without_a_sign_of_masking_are_refused(tmp_path):
    for message, model in unmasked_models(tmp_path):
        if not isinstance(model, keras.Model | list):
            saved = mgpu.load(model)._runner.backend
            spec = tf.TensorSpec([None, None], tf.float32)
            with pytest.raises(ValueError, match=message):
                found(saved, ids()[1].astype(np.float32), LENGTH, spec=spec)
            continue
        with pytest.raises(ValueError, match="shows no sign of ignoring padding") as e:
            tried(model, *ids())
        assert message in str(e.value)


def test_strides_leave_fewer_tokens_and_repeats_more():
    (rule,) = tried(text_model(strided), *ids(length=60, longest=256), unmasked=True)
    model = text_model(strided)
    for length in (17, 18, 59, 60, 61, 254, 255, 256, 301):
        assert rule(length) == model(np.ones((1, length))).shape[1]
    assert rule(np.array([0, 3, 17])).tolist() == [0, 0, 2]
    repeated = text_model(lambda layers, x: layers.UpSampling1D(3)(x))
    (rule,) = tried(repeated, *ids(), unmasked=True)
    assert rule(np.arange(4)).tolist() == [0, 3, 6, 9]


class Odd(keras.layers.Layer):
    """Keeps a number of tokens that follows no known rule."""

    def call(self, x):
        length = tf.cast(tf.shape(x)[1], tf.float32)
        return x[:, : tf.cast(tf.sqrt(length), tf.int32)]


class Scores(keras.layers.Layer):
    def call(self, x):
        return tf.matmul(x, x, transpose_b=True)


def test_tokens_that_cannot_be_distinguished_from_padding_are_refused():
    for layer, message in [
        (Odd(), r"An output has 2 tokens for rows of 6, and 4 for rows of 16, with no"),
        (
            Scores(),
            r"A result has shape \(None, None, None\), where each None depends on",
        ),
    ]:
        model = text_model(lambda layers, x, layer=layer: layer(x))
        with pytest.raises(ValueError, match=message):
            tried(model, *ids(), unmasked=True)


def test_results_are_those_of_the_method():
    model = text_model(encoder)
    assert tried(model, *ids(), head_of("predict_classes")) == (None, EACH)
    top = (None, None, EACH, EACH)
    assert tried(model, *ids(), head_of("predict_top_k", k=2)) == top
    assert tried(model, *ids(), evaluation) == (None, EACH, EACH)  # and its mask
    two = [model, text_model(encoder)]
    assert tried(two, *ids(), combine="mean_std") == (None, None, EACH, EACH)
    with pytest.raises(ValueError, match=r'pass combine="mean"'):
        tried(two, *ids(), combine="stack")


def test_methods_along_the_axis_of_the_tokens_are_refused():
    def scores(layers, x):
        return layers.Reshape((-1,))(layers.Dense(1)(x))

    model = text_model(scores)
    assert tried(model, *ids()) == (EACH,)
    for head in (
        head_of("predict_classes"),
        head_of("predict_top_k", k=2),
        head_of("predict_proba", from_logits=True),
    ):
        message = rf"{head.method} works along the last axis .* \(None, None\)"
        with pytest.raises(ValueError, match=message):
            tried(model, *ids(), head)


def test_models_that_draw_numbers_are_not_compared():
    def noisy(layers, x):
        return layers.Dropout(0.5)(layers.LSTM(4)(x), training=True)

    class Noise(keras.layers.Layer):
        def call(self, x):
            return x + tf.random.normal(tf.shape(x))

    for make in (noisy, lambda layers, x: Noise()(layers.LSTM(4)(x))):
        model = text_model(make)
        seeds = [np.asarray(v) for v in model.non_trainable_variables]
        assert tried(model, *ids()) == (None,)
        for before, after in zip(seeds, model.non_trainable_variables, strict=True):
            np.testing.assert_array_equal(before, after)


def test_rows_of_one_length_and_rows_too_short_to_run_alone():
    model = text_model(encoder)
    assert tried(model, *ids(), unmasked=True) == (None, EACH)
    alone, padded = ids(length=1, longest=40)
    (rule,) = tried(text_model(strided), alone, padded, unmasked=True)
    assert rule(40) == 5
    backend, rows = backend_of(model), ids()[1][1:]
    first = found(backend, rows, LONGEST)
    assert first.tokens == (None, EACH)
    assert found(backend, rows, LONGEST) is first


def test_what_was_found_holds_only_for_the_same_padding():
    for model, first in [
        (text_model(convolution), ids()[1][1:]),  # of one length, so nothing is found
        (text_model(lstm), ids()[1]),
    ]:
        backend, padded = backend_of(model), ids()[1]
        length = LENGTH if first.shape == padded.shape else LONGEST
        assert found(backend, first, length).tokens == (None,)
        padded[0, LENGTH:] = 5
        with pytest.raises(ValueError, match="does not ignore padding"):
            found(backend, padded, LENGTH)


def test_rows_that_strides_fit_and_others():
    """Pooling drops the last token of an odd length, but sees it next to padding."""

    def pooled(layers, x):
        x = layers.Lambda(lambda x: tf.cast(x != 0, tf.float32)[..., None])(x)
        return layers.GlobalMaxPooling1D()(layers.AveragePooling1D(2)(x))

    inputs = {"mask_of_ids": keras.Input((None,), dtype="int32", name="mask_of_ids")}
    model = keras.Model(inputs, pooled(keras.layers, inputs["mask_of_ids"]))
    backend, spec = backend_of(model), {"mask_of_ids": IDS}
    rows = np.zeros((3, 8), np.int32)
    rows[0, 3], rows[1, 4], rows[2, 4:] = 1, 1, 1
    given = {"mask_of_ids": rows}
    with pytest.raises(ValueError, match="for a row of 5 tokens differs by up to 0.5"):
        found(backend, given, 4, 5, spec=spec)
    assert found(backend, given, 4, spec=spec).tokens == (None,)


def test_lower_precision_counts_as_rounding():
    model = text_model(encoder)
    assert tried(model, *ids(), precision="bfloat16") == (None, EACH)
    assert tried(model, *ids(), Head(dtype="float16")) == (None, EACH)
