"""Views by name and by user-defined functions, compared with NumPy."""

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.models.turns import turned
from keras_mgpu_strategy.models.views import check_views
from tests import views


@pytest.mark.parametrize("name", views.TURNS)
def test_named_views_move_pixels_and_bring_them_back(name):
    forward, inverse = views.TURNS[name]
    random = np.random.default_rng(0)
    for dtype in ("uint8", "int16", "int64", "bool", "float16", "float32", "float64"):
        images = (100 * random.random((3, 6, 6, 2))).astype(dtype)
        new, back = turned(name, tf.constant(images))
        np.testing.assert_array_equal(new, forward(images))
        maps = (100 * random.random((3, 3, 3, 4))).astype(dtype)
        np.testing.assert_array_equal(back(tf.constant(maps)), inverse(maps))
        np.testing.assert_array_equal(back(new), images)


@pytest.mark.parametrize(
    ("given", "error", "message"),
    [
        ([], ValueError, r"views=\[\] names nothing. Expected a list of names"),
        ("rot90", TypeError, "views='rot90' of type str. Expected a list of names"),
        (["rot90", 3], TypeError, r"views=\['rot90', 3\] of type list. Expected a"),
        (["flip_leftright"], ValueError, "Did you mean 'flip_left_right'?"),
        (["mirror"], ValueError, r"views has 'mirror'. Expected .*rot270\) or mgpu.V"),
        (["rot90", "rot90"], ValueError, "'rot90' twice. Expected each view once."),
    ],
)
def test_values_that_are_not_views_are_refused(given, error, message):
    with pytest.raises(error, match=message):
        check_views(given)


def test_custom_views_are_functions():
    assert repr(mgpu.View(len, np.abs)) == "View(len, absolute)"
    with pytest.raises(TypeError, match="mgpu.View received forward='rot90' of type s"):
        mgpu.View("rot90")
    with pytest.raises(TypeError, match="mgpu.View received inverse=3 of type int. Ex"):
        mgpu.View(len, 3)


layers = keras.layers
RANDOM = np.random.default_rng(5)
IMAGES = RANDOM.random((11, 8, 8, 3), dtype=np.float32)


def maps(shape=(8, 8, 3), kernel="same"):
    """Maps of an image's pixels, and classes."""
    image = keras.Input(shape, name="image")
    seen = layers.Conv2D(2, 3, padding=kernel, activation="tanh")(image)
    classes = layers.Dense(3, activation="softmax")(layers.Flatten()(seen))
    return keras.Model(image, {"map": seen, "classes": classes})


def assert_close(received, expected):
    def compare(one, other):
        assert one.dtype == other.dtype
        np.testing.assert_allclose(one, other, rtol=1e-5, atol=1e-6)

    tf.nest.map_structure(compare, received, expected)


def assert_mean(model, rows, names, **options):
    """The same as the mean of what Keras predicts on each view."""
    predictor = mgpu.Predictor(model, views=names, **options)
    expected = views.mean(views.predictions(model, rows, names))
    assert_close(predictor.predict(rows, 4, verbose=0), expected)


def test_inputs_that_are_not_images_stay_as_they_are():
    image, mask = keras.Input((8, 8, 3)), keras.Input((4, 4, 1), dtype="bool")
    about = keras.Input((5,))
    seen = layers.Flatten()(layers.Conv2D(2, 3)(image))
    marked = layers.Flatten()(layers.Rescaling(2.0)(mask))
    outputs = layers.Dense(3)(layers.Concatenate()([seen, marked, about]))
    model = keras.Model([image, mask, about], outputs)
    rows = [IMAGES, RANDOM.random((11, 4, 4, 1)) > 0.5, IMAGES[:, 0, :5, 0]]
    assert_mean(model, rows, ["identity", "flip_left_right", "rot90"])


def test_images_of_bytes_and_maps_of_other_sizes():
    image = keras.Input((8, 6, 3), dtype="uint8")
    seen = layers.Conv2D(2, 3, padding="same")(layers.Rescaling(1 / 255)(image))
    large = layers.UpSampling2D(2)(seen)
    alone = layers.GlobalAveragePooling2D(keepdims=True)(large)
    sums = layers.Lambda(lambda x: tf.reduce_sum(x, [2, 3]))(seen)
    half = layers.MaxPooling2D(2)(seen)
    model = keras.Model(image, [seen, half, large, alone, sums])
    rows = RANDOM.integers(0, 256, (11, 8, 6, 3)).astype(np.uint8)
    assert_mean(model, rows, ["identity", "flip_left_right", "rot180"])


def test_models_that_declare_no_inputs():
    class Own(keras.Model):
        def __init__(self):
            super().__init__()
            self.conv = layers.Conv2D(2, 3, padding="same")

        def call(self, inputs):
            return self.conv(inputs)

    model = Own()
    assert_mean(model, IMAGES, ["flip_up_down", "rot90"])
    predictor = mgpu.Predictor(model, views=["rot90"])
    with pytest.raises(ValueError, match="takes square images, but the model takes im"):
        predictor.predict(IMAGES[:, :6], verbose=0)
    with pytest.raises(ValueError, match=r"takes images, .* takes float32 \(4, 8\)"):
        predictor.predict(IMAGES[:, 0, :, 0], 4, verbose=0)


def test_saved_models_and_steps_that_see_labels(tmp_path):
    class Doubling(keras.Model):
        def predict_step(self, data):
            x, *_ = keras.utils.unpack_x_y_sample_weight(data)
            return 2.0 * self(x, training=False)

    image = keras.Input((8, 8, 3))
    model = Doubling(image, layers.Conv2D(2, 3, padding="same")(image))
    names = ["identity", "rot270"]
    rows = tf.data.Dataset.from_tensor_slices((IMAGES, IMAGES)).batch(4)
    plain = keras.Model(image, model.output)  # Keras gives bare arrays no tuple
    each = views.predictions(plain, IMAGES, names, batch_size=4)
    each = [2.0 * outputs for outputs in each]
    received = mgpu.Predictor(model, views=names).predict(rows, verbose=0)
    assert_close(received, views.mean(each))
    model.export(tmp_path / "exported", verbose=False)
    exported = mgpu.load(tmp_path / "exported", views=names, combine="stack")
    assert_close(2 * exported.predict(IMAGES, 4, verbose=0), views.stack(each))


def test_images_of_varying_sizes():
    model = keras.Sequential([keras.Input((None, None, 3)), layers.Conv2D(2, 1)])
    model.add(layers.GlobalMaxPooling2D())
    parts = [IMAGES[:4], IMAGES[:4, :6], IMAGES[:4, :, :5], IMAGES[:4, :6, :7]]
    names = ["identity", "flip_left_right", "rot180"]
    predictor = mgpu.Predictor(model, views=names)
    expected = [views.mean(views.predictions(model, part, names)) for part in parts]
    for _ in range(2):  # now the step takes any size
        received = [predictor.predict(part, 4, verbose=0) for part in parts]
        assert_close(received, expected)
    turning = mgpu.Predictor(model, views=["rot90"])
    turning.predict(parts[0], 4, verbose=0)
    with pytest.raises(ValueError, match="takes square images, but heights or widths"):
        turning.predict(IMAGES[:4, :6, :6], 4, verbose=0)


@pytest.mark.parametrize(
    ("model", "name", "message"),
    [
        (
            lambda: keras.Sequential([keras.Input((5,)), layers.Dense(2)]),
            "flip_up_down",
            r"'flip_up_down' takes images, \(n, height, width, channels\), but the mod"
            r"el takes float32 \(None, 5\). To view other rows, pass `mgpu.View",
        ),
        (
            lambda: maps((8, 6, 3)),
            "rot90",
            r"'rot90' takes square images, but the model takes .* \(None, 8, 6, 3\).",
        ),
        (
            lambda: maps(kernel="valid"),
            "flip_left_right",
            r"'flip_left_right' cannot turn an output of shape \(None, 6, 6, 2\) back, "
            r"for images of shape \(None, 8, 8, 3\). Expected four axes",
        ),
        (
            lambda: keras.Sequential([keras.Input((8, 8, 1)), layers.Reshape((8, 8))]),
            "rot180",
            r"cannot turn an output of shape \(None, 8, 8\) back",
        ),
        (
            lambda: keras.Sequential(
                [
                    keras.Input((3, 8, 8)),
                    layers.GlobalMaxPooling2D(data_format="channels_first", name="top"),
                ]
            ),
            "rot180",
            "layer 'top' has data_format='channels_first'. To view another layout, pas",
        ),
    ],
)
def test_models_that_a_named_view_does_not_fit(model, name, message):
    with pytest.raises(ValueError, match=message):
        mgpu.Predictor(model(), views=["identity", name])


def flipped(nest):
    return views.of_images(lambda array: tf.reverse(array, [2]), nest)


def test_custom_views():
    model = maps()
    own = mgpu.View(lambda image: tf.reverse(image, [2]), flipped)
    one_way = mgpu.View(lambda image: image * 0.5)
    predictor = mgpu.Predictor(model, views=["identity", own, one_way], combine="stack")
    each = views.predictions(model, IMAGES, ["identity", "flip_left_right"])
    half = model.predict(IMAGES * 0.5, verbose=0)
    expected = views.stack([*each, half])
    assert_close(predictor.predict(IMAGES, 4, verbose=0), expected)


def test_custom_views_see_all_inputs():
    inputs = {name: keras.Input((4,), name=name) for name in ("left", "right")}
    model = keras.Model(inputs, layers.Concatenate()([*inputs.values()]))
    own = mgpu.View(lambda given: given | {"left": given["left"] + 1.0})
    rows = {"left": IMAGES[:, 0, :4, 0], "right": IMAGES[:, 0, :4, 1]}
    predictor = mgpu.Predictor(model, views=[own])
    expected = np.concatenate([rows["left"] + 1, rows["right"]], axis=1)
    assert_close(predictor.predict(rows, 4, verbose=0), expected)


def raising(image):
    raise KeyError("what it looked for")


@pytest.mark.parametrize(
    ("own", "message"),
    [
        (
            mgpu.View(lambda x: x[:2]),
            r"returned float32 \(2, 8, 8, 3\) for flo",
        ),
        (mgpu.View(lambda x: [x, x]), "Expected the same structure, shapes and dtypes"),
        (mgpu.View(lambda x: tf.cast(x, tf.float64)), "returned float64"),
        (mgpu.View(lambda x: None), "returned NoneType for float32"),
        (
            mgpu.View(lambda x: x, lambda nest: nest["map"]),
            r"The function 'inverse' of View\(<lambda>, <lambda>\) returned",
        ),
    ],
)
def test_what_functions_return_must_be_like_their_argument(own, message):
    predictor = mgpu.Predictor(maps(), views=[own])
    with pytest.raises(ValueError, match=message):
        predictor.predict(IMAGES, 4, verbose=0)


def test_errors_of_functions_name_the_view():
    predictor = mgpu.Predictor(maps(), views=[mgpu.View(raising)])
    with pytest.raises(KeyError, match="what it looked for") as caught:
        predictor.predict(IMAGES, 4, verbose=0)
    note = "The function 'forward' of View(raising) was given float32 (4, 8, 8, 3)."
    assert note in caught.value.__notes__
