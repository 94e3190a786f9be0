"""From the path of an image file to a tensor, in a TensorFlow graph.

Guarantees:

* What `keras.utils.image_dataset_from_directory` can read is decoded to exactly the
  same pixels: `tf.image.decode_image`, then `tf.image.resize`, bilinear, not
  antialiased, ignoring the aspect ratio. Exceptions are the files that it gets wrong:
  BMP files with palettes or other color masks, and GIF files whose first frame does not
  fill the picture.
* The content decides how a file is decoded, never its suffix.
* Whatever channels a file has, the image has the requested ones: gray is repeated,
  colors are weighted as in `tf.image.rgb_to_grayscale`, a missing alpha is opaque and
  an unwanted one is dropped. Of an animation, the first frame is used; 16 bits become
  8.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.images.contents import (
    JPEG_SCAN,
    MAX_BYTES,
    MAX_SCANS,
    BadImage,
)
from keras_mgpu_strategy.formats.images.form import ImageForm
from keras_mgpu_strategy.formats.images.kinds import JPEG, PNG, decode_in_python

Load = Callable[[tf.Tensor], tf.Tensor]
"""Takes the path of a file and returns the image, or fails: with TensorFlow's error, or
with `BadImage`, which only a call outside a graph raises."""

_PNG_END = b"IEND\xaeB\x60\x82"
_NO_IMAGE = (BadImage, tf.errors.OpError)


def load_fn(form: ImageForm, scale: Callable[[tf.Tensor], tf.Tensor]) -> Load:
    """Returns a function that reads, decodes, resizes and scales one file.

    Args:
        form: What images are converted to.
        scale: Applied to the resized image of shape `(height, width, channels)`,
            floats from 0 to 255.
    """

    def load(path: tf.Tensor) -> tf.Tensor:
        image = decode(tf.io.read_file(path), form.channels)
        image = tf.image.resize(image, (form.height, form.width))
        if form.dtype.is_integer:
            image = tf.saturate_cast(tf.round(image), form.dtype)
        else:  # before scaling, which rounds
            image = scale(tf.cast(image, form.dtype))
        return tf.reshape(image, form.shape)

    return load


def decode(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns an image of shape `(height, width, channels)`, uint8.

    Most files never reach Python: complete PNG and JPEG files that are small enough.
    """
    return tf.cond(
        tf.cond(
            tf.equal(tf.strings.substr(contents, 0, len(JPEG)), JPEG),
            lambda: _is_plain_jpeg(contents, channels),
            lambda: _is_plain_png(contents, channels),
        ),
        lambda: tf.io.decode_image(contents, channels, expand_animations=False),
        lambda: _decode_by_python(contents, channels),
    )


def _is_plain_jpeg(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Whether TensorFlow can decode to such channels: not alpha, nor gray from CMYK.

    And whether few scans are found; more may be found than there are.
    """
    if channels == 4:
        return tf.constant(False)
    shape = tf.io.extract_jpeg_shape(contents)
    between_scans = tf.strings.split([contents], JPEG_SCAN).values
    return (
        _fits(shape[:2], channels)
        & ((shape[2] < 4) | (channels == 3))
        & (tf.size(between_scans) <= MAX_SCANS + 1)
    )


def _is_plain_png(contents: tf.Tensor, channels: int) -> tf.Tensor:
    # Padded, since other files may be shorter than a PNG header.
    head = tf.strings.substr(contents, 0, 24) + bytes(24)
    end = tf.maximum(tf.strings.length(contents) - len(_PNG_END), 0)
    size = tf.io.decode_raw(
        tf.strings.substr(head, 16, 8), tf.int32, little_endian=False
    )
    return (
        tf.equal(tf.strings.substr(head, 0, len(PNG)), PNG)
        & tf.equal(tf.strings.substr(contents, end, len(_PNG_END)), _PNG_END)
        & _fits(size, channels)
    )


def _fits(size: tf.Tensor, channels: int) -> tf.Tensor:
    # Products of the claimed sizes can overflow integers.
    is_small = tf.reduce_prod(tf.cast(size, tf.float64)) * channels <= MAX_BYTES
    return tf.reduce_all(size > 0) & is_small


def _decode_by_python(contents: tf.Tensor, channels: int) -> tf.Tensor:
    if tf.executing_eagerly():
        return tf.constant(decode_in_python(bytes(contents.numpy()), channels))
    decode_or_nothing = functools.partial(_decode_or_nothing, channels=channels)
    image = tf.numpy_function(decode_or_nothing, [contents], tf.uint8, stateful=False)
    return tf.ensure_shape(image, [None, None, channels])


def _decode_or_nothing(contents: bytes, channels: int) -> np.ndarray:
    """Without pixels, resizing fails; TensorFlow would print an error raised here."""
    try:
        return decode_in_python(contents, channels)
    except _NO_IMAGE:
        return np.zeros((0, 0, channels), np.uint8)
