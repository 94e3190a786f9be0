"""Runs with views, by every method and into files, compared with NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from tests import views

layers = keras.layers
RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.random((37, 8, 8, 3), dtype=np.float32)
NAMES = ["identity", "flip_left_right", "rot90", "rot180"]


def classifier(library=keras, seed=0):
    """Logits of four classes."""
    library.utils.set_random_seed(seed)
    image = library.Input((8, 8, 3))
    seen = library.layers.Conv2D(2, 3, padding="same", activation="tanh", name="conv")(
        image
    )
    logits = library.layers.Dense(4)(library.layers.Flatten()(seen))
    return library.Model(image, logits)


@pytest.fixture(scope="module")
def model():
    return classifier()


@pytest.fixture(scope="module")
def each(model):
    return np.array(views.predictions(model, IMAGES, NAMES))


def softmax(logits):
    powers = np.exp(logits - logits.max(-1, keepdims=True))
    return powers / powers.sum(-1, keepdims=True)


def assert_close(received, expected, tolerance=1e-5):
    def compare(one, other):
        np.testing.assert_allclose(one, other, rtol=tolerance, atol=tolerance)

    tf.nest.map_structure(compare, received, expected)


def test_every_method_and_combination(model, each):
    how = {"batch_size": 8, "verbose": 0}
    classes = each.argmax(-1)
    mean = softmax(each).mean(0)
    expected = {
        "mean": mean,
        "gmean": np.exp(np.log(softmax(each)).mean(0)),
        "stack": softmax(each).swapaxes(0, 1),
        "mean_std": {"mean": mean, "std": softmax(each).std(0)},
    }
    for combine, results in expected.items():
        predictor = mgpu.Predictor(model, views=NAMES, combine=combine)
        received = predictor.predict_proba(IMAGES, from_logits=True, **how)
        assert_close(received, results)
        if combine in ("mean", "stack"):
            found = predictor.predict_top_k(IMAGES, 2, from_logits=True, **how)
            best = np.argsort(-results, axis=-1, kind="stable")[..., :2]
            np.testing.assert_array_equal(found["classes"], best)
    voted = mgpu.Predictor(model, views=NAMES, combine="vote")
    most = [np.bincount(row).argmax() for row in classes.T]
    np.testing.assert_array_equal(
        voted.predict_classes(IMAGES, from_logits=True, **how), most
    )


@pytest.mark.parametrize("library", [keras, tf_keras])
def test_evaluation_and_compiling_by_xla(library, each):
    model = classifier(library)
    loss = library.losses.SparseCategoricalCrossentropy(from_logits=True)
    model.compile(loss=loss, metrics=["accuracy"])
    labels = RANDOM.integers(0, 4, len(IMAGES))
    mean = np.mean(views.predictions(model, IMAGES, NAMES), axis=0)
    judge = library.Sequential([library.Input((4,)), library.layers.Activation(None)])
    judge.compile(loss=loss, metrics=["accuracy"])
    expected = judge.evaluate(mean, labels, verbose=0)
    for jit_compile in (False, True):
        predictor = mgpu.Predictor(model, views=NAMES, jit_compile=jit_compile)
        assert predictor.model.count_params() == model.count_params()
        assert_close(predictor.evaluate(IMAGES, labels, 8, 0), expected)


def test_outputs_of_layers_and_precision(model):
    part = keras.Model(model.input, model.get_layer("conv").output)
    expected = views.mean(views.predictions(part, IMAGES, NAMES))
    predictor = mgpu.Predictor(model, views=NAMES, outputs="conv")
    assert_close(predictor.predict(IMAGES, 8, verbose=0), expected)
    low = {"precision": "bfloat16", "output_dtype": "float16"}
    predictor = mgpu.Predictor(model, views=NAMES, outputs="conv", **low)
    received = predictor.predict(IMAGES, 8, verbose=0)
    assert received.dtype == np.float16
    assert_close(received, expected, 0.02)


def darker(by):
    return mgpu.View(lambda images: images * by)


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
def test_a_run_is_resumed_with_the_same_views_alone(model, engine, tmp_path):
    path = tmp_path / "out.npy"
    predictor = mgpu.Predictor(model, views=["identity", darker(0.5)], engine=engine)

    def failing():
        yield IMAGES[:20]
        raise OSError("the disk is gone")

    with pytest.raises(OSError, match="the disk is gone"):
        predictor.predict_to(path, failing(), 8, 0, method="predict")
    for others in (["identity", darker(0.25)], ["identity", "rot90"], None):
        other = mgpu.Predictor(model, views=others, engine=engine)
        with pytest.raises(ValueError, match="views"):
            other.predict_to(path, IMAGES, 8, 0, method="predict", resume=True)
    same = mgpu.Predictor(model, views=["identity", darker(0.5)], engine=engine)
    report = same.predict_to(path, iter([IMAGES]), 8, 0, method="predict", resume=True)
    assert 0 < report.rows < len(IMAGES)
    np.testing.assert_array_equal(
        np.load(path), predictor.predict(IMAGES, 8, verbose=0)
    )
