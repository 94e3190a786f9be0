"""Size, channels and dtype of images, by what a model declares."""

import pytest
import tensorflow as tf
from image_cases import takes

from keras_mgpu_strategy.formats.images.form import ImageForm, form_for

ANY_RANK = tf.TensorSpec(None, tf.float32)


@pytest.mark.parametrize(
    ("declared", "size", "color", "form"),
    [
        (takes(6, 5, 3), None, None, ImageForm(6, 5, 3)),
        (takes(6, 5, 1), None, None, ImageForm(6, 5, 1)),
        (takes(6, 5, 4), (6, 5), "rgba", ImageForm(6, 5, 4)),
        (takes(6, 5), None, None, ImageForm(6, 5, 1, has_channels=False)),
        (takes(None, None, 3), (6, 5), None, ImageForm(6, 5, 3)),
        (takes(6, None, 3), (6, 5), None, ImageForm(6, 5, 3)),
        (takes(6, 5, None), None, None, ImageForm(6, 5, 3)),
        (takes(6, 5, None), None, "grayscale", ImageForm(6, 5, 1)),
        ([takes(6, 5, 3)], None, None, ImageForm(6, 5, 3)),
        ({"a": takes(6, 5, 3)}, None, None, ImageForm(6, 5, 3)),
        (takes(6, 5, 3, dtype=tf.float16), None, None, ImageForm(6, 5, 3)),
        (
            takes(6, 5, 3, dtype=tf.uint8),
            None,
            None,
            ImageForm(6, 5, 3, True, tf.uint8),
        ),
        (
            takes(6, 5, 3, dtype=tf.int64),
            None,
            None,
            ImageForm(6, 5, 3, True, tf.uint8),
        ),
        (None, (6, 5), None, ImageForm(6, 5, 3)),
        (ANY_RANK, (6, 5), "grayscale", ImageForm(6, 5, 1)),
    ],
)
def test_the_form_that_images_get(declared, size, color, form):
    assert form_for(declared, size, color) == form


@pytest.mark.parametrize(
    ("declared", "size", "color", "form"),
    [
        (takes(6, 5, 3), None, None, ImageForm(6, 5, 3)),
        (takes(6, 5, 3), (8, 8), None, ImageForm(8, 8, 3)),
        (takes(6, 5, 1), (8, 8), None, ImageForm(8, 8, 1)),
        (takes(6, 5, 1), None, "rgb", ImageForm(6, 5, 3)),
        (takes(6, 5), None, None, ImageForm(6, 5, 1)),
        (takes(3, 6, 5), (6, 5), None, ImageForm(6, 5, 3)),
        (takes(3, 6, 5), (6, 5), "grayscale", ImageForm(6, 5, 1)),
        (takes(30), (6, 5), None, ImageForm(6, 5, 3)),
        (takes(6, 5, 3, dtype=tf.int32), None, None, ImageForm(6, 5, 3)),
        (None, (6, 5), None, ImageForm(6, 5, 3)),
    ],
)
def test_what_a_function_is_given(declared, size, color, form):
    assert form_for(declared, size, color, is_free=True) == form


@pytest.mark.parametrize(
    ("message", "declared", "size", "color"),
    [
        (
            r"feed one model input, but the model has 2: \['image', 'age'\]. Pass a tf",
            [takes(6, 5, 3), takes(1, name="age")],
            None,
            None,
        ),
        (
            r"does not declare the shape of its input.*Pass image_size=\(height, width",
            None,
            None,
            None,
        ),
        (
            r"input 'image' has shape \(None, None, None, 3\): it takes images of any "
            r"size. Pass image_size=\(height, width\)",
            takes(None, None, 3),
            None,
            None,
        ),
        (
            r"input has shape \(None, 6, None, 3\): it takes images of any size",
            takes(6, None, 3, name=None),
            None,
            None,
        ),
        (
            r"Received image_size=\(8, 5\). The model input 'image' has shape "
            r"\(None, 6, 5, 3\): leave image_size out, or pass image_size=\(6, 5\)",
            takes(6, 5, 3),
            (8, 5),
            None,
        ),
        (
            r"image_size=\(6, 5\).* or pass image_size=\(height, 7\)",
            takes(None, 7, 3),
            (6, 5),
            None,
        ),
        (
            r"Received color_mode='rgb'.*\(None, 6, 5, 1\): leave color_mode out, or "
            "pass color_mode='grayscale'",
            takes(6, 5, 1),
            None,
            "rgb",
        ),
        (
            r"\(None, 3, 224, 224\): it takes channels first.*transpose\(0, 3, 1, 2\)"
            r".*keras.layers.Permute\(\(3, 1, 2\)\)",
            takes(3, 224, 224),
            None,
            None,
        ),
        (
            r"shape \(None, 6, 5, 12\), expected \(rows, height, width, channels\)",
            takes(6, 5, 12),
            None,
            None,
        ),
        (r"shape \(None, 30\), expected \(rows, height", takes(30), (6, 5), None),
        (
            "dtype string, expected floats, or integers that hold 0 to 255",
            takes(6, 5, 3, dtype=tf.string),
            None,
            None,
        ),
        ("dtype int8, expected floats", takes(6, 5, 3, dtype=tf.int8), None, None),
        ("dtype bool, expected floats", takes(6, 5, 3, dtype=tf.bool), None, None),
    ],
)
def test_what_does_not_fit(message, declared, size, color):
    with pytest.raises(ValueError, match=message):
        form_for(declared, size, color)
