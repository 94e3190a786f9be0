"""Scaling of pixels, by name and by the user's functions."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_cases import missing_rows, read_all, references, takes, write_folder

from keras_mgpu_strategy.formats.images.input import Images
from keras_mgpu_strategy.types import Undeclared

NUM_IMAGES = 9
SIZE = (6, 5)
MODULE = """
import numpy as np

HALF = 0.5

def halve(batch):
    return batch / 2

class Scaler:
    @staticmethod
    def unit(batch):
        return batch / 255
"""


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("images"), NUM_IMAGES)


@pytest.fixture(scope="module")
def expected(paths):
    return references(paths, SIZE)


@pytest.fixture
def module(tmp_path, monkeypatch):
    (tmp_path / "my_scaling.py").write_text(MODULE)
    (tmp_path / "my_broken.py").write_text("import a_module_that_is_not_there\n")
    monkeypatch.syspath_prepend(tmp_path)
    return "my_scaling"


def open_rows(paths, preprocess, declared=None, **kwargs):
    images = Images(paths, preprocess=preprocess, **kwargs)
    return images.open_rows(takes(*SIZE, 3) if declared is None else declared)


def fails(batch):
    raise RuntimeError("mine")


def test_unit(paths, expected):
    np.testing.assert_array_equal(read_all(open_rows(paths, "unit")), expected / 255)


def test_imagenet_is_the_mode_torch_of_keras(paths, expected):
    theirs = keras.applications.imagenet_utils.preprocess_input(
        expected.copy(), mode="torch"
    )
    rows = read_all(open_rows(paths, "imagenet"))
    np.testing.assert_allclose(rows, theirs, rtol=1e-6, atol=1e-6)
    np.testing.assert_allclose(
        rows[0, 0, 0, 2] * 0.225 + 0.406, expected[0, 0, 0, 2] / 255, rtol=1e-5
    )


def test_a_function_that_overwrites_its_batch(paths, expected):
    function = keras.applications.resnet50.preprocess_input
    rows = read_all(open_rows(paths, function))
    np.testing.assert_array_equal(rows, function(expected.copy()))
    name = "keras.applications.resnet50:preprocess_input"
    np.testing.assert_array_equal(read_all(open_rows(paths, name)), rows)


@pytest.mark.parametrize("name", ["halve", "Scaler.unit"])
def test_functions_of_a_module(name, module, paths, expected):
    rows = read_all(open_rows(paths, f"{module}:{name}"))
    divisor = {"halve": 2, "Scaler.unit": 255}[name]
    np.testing.assert_array_equal(rows, expected / np.float32(divisor))


def test_a_layer_is_a_function(paths, expected):
    source = open_rows(paths, keras.layers.Rescaling(1 / 255))
    np.testing.assert_allclose(read_all(source), expected / 255, rtol=1e-6)


def test_a_function_that_crops(paths):
    source = open_rows(paths, lambda batch: batch[:, 1:-1, 2:-1], image_size=(8, 8))
    assert source.spec == tf.TensorSpec([None, 6, 5, 3], tf.float32)
    whole = references(paths, (8, 8))
    np.testing.assert_array_equal(read_all(source), whole[:, 1:-1, 2:-1])


def test_a_function_for_a_model_of_channels_first(paths, expected):
    source = open_rows(
        paths,
        lambda batch: batch.transpose(0, 3, 1, 2),
        takes(3, *SIZE),
        image_size=SIZE,
    )
    assert source.spec == tf.TensorSpec([None, 3, *SIZE], tf.float32)
    np.testing.assert_array_equal(read_all(source), expected.transpose(0, 3, 1, 2))


@pytest.mark.parametrize(
    ("returned", "declared", "given"),
    [
        (np.float64, tf.float32, tf.float32),
        (np.float64, tf.float64, tf.float64),
        (np.float32, tf.float64, tf.float64),
        (np.float64, tf.float16, tf.float16),
        (np.int32, tf.float32, tf.int32),
        (np.int64, tf.uint8, tf.uint8),
        (np.float64, Undeclared(tf.float64), tf.float64),
        (np.float64, Undeclared(None), tf.float64),
        (np.float64, None, tf.float32),
    ],
)
def test_dtypes_are_those_of_other_inputs(returned, declared, given, paths):
    is_declared = isinstance(declared, tf.DType)
    images = Images(
        paths, SIZE, preprocess=lambda batch: np.round(batch).astype(returned)
    )
    spec = takes(*SIZE, 3, dtype=declared) if is_declared else declared
    source = images.open_rows(spec)
    assert source.spec.dtype == given
    assert read_all(source).dtype == given.as_numpy_dtype


def test_a_function_keeps_what_float64_holds(paths):
    function = lambda batch: batch.astype(np.float64) / 3 + 1e9  # noqa: E731
    double = takes(*SIZE, 3, dtype=tf.float64)
    expected = function(references(paths, SIZE))
    assert (expected != expected.astype(np.float32)).any()
    np.testing.assert_array_equal(
        read_all(open_rows(paths, function, double)), expected
    )


@pytest.mark.parametrize(
    "spec", [takes(*SIZE, 3, dtype=tf.float64), Undeclared(tf.float64)]
)
def test_float64_models_are_given_pixels_that_are_scaled_in_float64(spec, paths):
    pixels = references(paths, SIZE).astype(np.float64)
    theirs = keras.applications.imagenet_utils.preprocess_input
    for preprocess, expected in [
        ("none", pixels),
        ("unit", pixels / 255),
        ("imagenet", theirs(pixels.copy(), mode="torch")),
    ]:
        source = Images(paths, SIZE, preprocess=preprocess).open_rows(spec)
        assert source.spec.dtype == tf.float64
        np.testing.assert_allclose(read_all(source), expected, rtol=1e-15, atol=1e-15)


def test_values_that_the_model_cannot_hold(paths, tmp_path):
    bytes_ = takes(*SIZE, 3, dtype=tf.uint8)
    message = r"the preprocess function, row of a placeholder image holds 0\.5"
    with pytest.raises(ValueError, match=message):
        open_rows(paths, lambda batch: batch * 0 + 0.5, bytes_)

    def over(batch):
        return batch * (1 if len(batch) == 1 else 0) + 256 * (len(batch) > 1)

    bad = tmp_path / "bad.png"
    bad.touch()
    source = open_rows([bad, *paths], over, bytes_, on_bad_file="skip")
    with pytest.raises(ValueError, match=r"row 1 holds 256\.0 .*uint8"):
        list(source.batches(4))


def test_a_function_is_never_given_a_bad_file(paths, expected, tmp_path):
    bad = tmp_path / "bad.png"
    bad.touch()
    sizes = []

    def function(batch):
        sizes.append(len(batch))
        return batch / batch.std(axis=(1, 2, 3), keepdims=True)

    listed = [bad, *paths[:3], bad, bad, bad, bad, paths[3]]
    source = open_rows(listed, function, on_bad_file="skip")
    rows = read_all(source, batch_size=4)
    assert sizes == [1, 3, 1]
    assert missing_rows(source) == [0, 4, 5, 6, 7]
    assert not rows[[0, 4, 5, 6, 7]].any()
    whole = expected[:4]
    scaled = whole / whole.std(axis=(1, 2, 3), keepdims=True)
    np.testing.assert_allclose(rows[[1, 2, 3, 8]], scaled, rtol=1e-5)


@pytest.mark.parametrize("on_bad_file", ["raise", "skip"])
def test_an_error_of_the_function_is_not_blamed_on_files(paths, on_bad_file):
    calls = []

    def fails_later(batch):
        calls.append(batch)
        return batch if len(calls) < 3 else fails(batch)

    batches = open_rows(paths, fails_later, on_bad_file=on_bad_file).batches(2)
    assert next(batches).num_rows == 2
    with pytest.raises(RuntimeError, match="^mine$"):
        next(batches)


def test_an_error_of_the_function_comes_before_reading():
    with pytest.raises(RuntimeError, match="^mine$"):
        open_rows(["gone.png"], fails, on_bad_file="skip")


@pytest.mark.parametrize(
    ("message", "function"),
    [
        (r"returned an array of shape \(6, 5, 3\).*expected 1 rows", lambda b: b[0]),
        (r"returned an array of shape \(\) and dtype object", lambda b: None),
        ("of the preprocess function has dtype=object", lambda b: np.array([None])),
    ],
)
def test_what_a_function_may_not_return(message, function, paths):
    with pytest.raises(ValueError, match=message):
        open_rows(paths, function)


def test_a_function_that_changes_its_mind(paths):
    def function(batch):
        return batch if len(batch) == 1 else batch[:, :3]

    message = r"shape \(4, 3, 5, 3\) and dtype float32.*but rows of shape \(6, 5, 3\)"
    with pytest.raises(ValueError, match=message):
        next(open_rows(paths, function).batches(4))


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("no_such_module:f", "Python finds no module 'no_such_module'. Put the folder"),
        ("my_scaling.sub:f", "Python finds no module 'my_scaling.sub'"),
        ("my_scaling:double", "but my_scaling has no 'double'"),
        ("my_scaling:HALF", "which is a float, expected a function"),
    ],
)
def test_missing_functions(name, message, module, paths):
    with pytest.raises(ValueError, match=message):
        open_rows(paths, name)


def test_an_error_while_importing_passes(module, paths):
    with pytest.raises(ModuleNotFoundError, match="a_module_that_is_not_there"):
        open_rows(paths, "my_broken:f")


@pytest.mark.parametrize("preprocess", ["unit", "imagenet"])
def test_integers_cannot_hold_scaled_pixels(preprocess, paths):
    message = f"preprocess='{preprocess}', but the model takes integers"
    with pytest.raises(ValueError, match=message):
        open_rows(paths, preprocess, takes(*SIZE, 3, dtype=tf.uint8))


def test_imagenet_needs_colors(paths):
    message = "preprocess='imagenet' for images of 1 channels, expected 3"
    with pytest.raises(ValueError, match=message):
        open_rows(paths, "imagenet", takes(*SIZE, 1))
