"""From the path of an image file to a tensor, in a TensorFlow graph.

Guarantees:

* PNG and JPEG, for a model of 1 or 3 channels, become exactly what
  `keras.utils.image_dataset_from_directory` makes of them: `tf.image.decode_image`,
  then `tf.image.resize`, bilinear, not antialiased, without regard to proportions.
* The content decides how a file is decoded, never its suffix.
* Whatever channels a file has, the image has those asked for: gray is repeated,
  colors are weighed as in `tf.image.rgb_to_grayscale`, a missing alpha is opaque and
  one that is not wanted is dropped. Of an animation the first frame is taken; 16 bits
  become 8.
"""

from collections.abc import Callable

import tensorflow as tf

from keras_mgpu_strategy.inputs.files.image_form import ImageForm

Load = Callable[[tf.Tensor], tf.Tensor]
"""Takes the path of a file and returns the image, or fails with TensorFlow's error."""

_JPEG = b"\xff\xd8"
_FIXED_CHANNELS = (b"GI", b"BM", b"RI")  # GIF, BMP, WebP: only as they are stored


def load_fn(form: ImageForm, scale: Callable[[tf.Tensor], tf.Tensor]) -> Load:
    """Returns a function that reads, decodes, resizes and scales one file.

    Args:
        form: What images are brought to.
        scale: Applied to the resized image of shape `(height, width, channels)`,
            float32 from 0 to 255.
    """

    def load(path: tf.Tensor) -> tf.Tensor:
        image = decode(tf.io.read_file(path), form.channels)
        image = scale(tf.image.resize(image, (form.height, form.width)))
        if form.dtype.is_integer:
            image = tf.saturate_cast(tf.round(image), form.dtype)
        return tf.reshape(image, form.shape)

    return load


def decode(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns an image of shape `(height, width, channels)`, uint8."""
    return tf.cond(
        _converts(contents, channels),
        lambda: tf.image.decode_image(contents, channels, expand_animations=False),
        lambda: _with_channels(_decode_as_stored(contents), channels),
    )


def _converts(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Whether TensorFlow's decoder of that kind of file can give such channels."""
    kind = tf.strings.substr(contents, 0, 2)
    is_jpeg = tf.equal(kind, _JPEG)
    is_other = tf.reduce_any(tf.equal(kind, tf.constant(_FIXED_CHANNELS)))
    if channels == 4:
        is_other = tf.logical_or(is_other, is_jpeg)
    if channels == 1:
        is_cmyk = tf.cond(is_jpeg, lambda: _has_4_channels(contents), lambda: False)
        is_other = tf.logical_or(is_other, is_cmyk)
    return tf.logical_not(is_other)


def _has_4_channels(jpeg: tf.Tensor) -> tf.Tensor:
    return tf.equal(tf.io.extract_jpeg_shape(jpeg)[2], 4)


def _decode_as_stored(contents: tf.Tensor) -> tf.Tensor:
    return tf.image.decode_image(contents, expand_animations=False)


def _with_channels(image: tf.Tensor, channels: int) -> tf.Tensor:
    colors = image[:, :, :3]
    rgb = tf.tile(colors, tf.stack([1, 1, 3 // tf.shape(colors)[2]]))
    rgb = tf.ensure_shape(rgb, [None, None, 3])
    if channels == 3:
        return rgb
    if channels == 1:
        return tf.image.rgb_to_grayscale(rgb)
    alpha = image[:, :, 3:]
    opaque = tf.fill(tf.shape(rgb[:, :, :1]), tf.constant(255, tf.uint8))
    return tf.ensure_shape(
        tf.concat([rgb, alpha, opaque], axis=2)[:, :, :4], [None, None, 4]
    )
