"""From the path of an image file to a tensor, in a TensorFlow graph.

Pixels are exactly those of `keras.utils.image_dataset_from_directory`, except for BMP
and GIF files that it gets wrong. Content decides, never the suffix. Most files never
reach Python, which decodes what TensorFlow alone cannot.
"""

import functools
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.images.contents import (
    JPEG,
    JPEG_SCAN,
    MAX_BYTES,
    MAX_SCANS,
    PNG,
    PNG_END,
    BadImage,
    pixels_of,
)
from keras_mgpu_strategy.formats.images.form import ImageForm

Load = Callable[[tf.Tensor], tf.Tensor]
"""Takes the path of a file and returns the image, or fails: with TensorFlow's error, or
with `BadImage`, which only a call outside a graph raises."""


def load_fn(form: ImageForm, scale: Callable[[tf.Tensor], tf.Tensor]) -> Load:
    """Returns what loads a file; `scale` takes the resized floats from 0 to 255."""

    def load(path: tf.Tensor) -> tf.Tensor:
        image = _decode(tf.io.read_file(path), form.channels)
        image = tf.image.resize(image, (form.height, form.width))
        if form.dtype.is_integer:
            image = tf.saturate_cast(tf.round(image), form.dtype)
        else:  # before scaling, which rounds
            image = scale(tf.cast(image, form.dtype))
        return tf.reshape(image, form.shape)

    return load


def _decode(contents: tf.Tensor, channels: int) -> tf.Tensor:
    """Returns uint8 `(height, width, channels)`."""
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
    """Whether TensorFlow can decode it: no alpha, no gray from CMYK, few scans."""
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
    end = tf.maximum(tf.strings.length(contents) - len(PNG_END), 0)
    size = tf.io.decode_raw(
        tf.strings.substr(head, 16, 8), tf.int32, little_endian=False
    )
    return (
        tf.equal(tf.strings.substr(head, 0, len(PNG)), PNG)
        & tf.equal(tf.strings.substr(contents, end, len(PNG_END)), PNG_END)
        & _fits(size, channels)
    )


def _fits(size: tf.Tensor, channels: int) -> tf.Tensor:
    # Products of the claimed sizes can overflow integers.
    is_small = tf.reduce_prod(tf.cast(size, tf.float64)) * channels <= MAX_BYTES
    return tf.reduce_all(size > 0) & is_small


def _decode_by_python(contents: tf.Tensor, channels: int) -> tf.Tensor:
    if tf.executing_eagerly():
        return tf.constant(pixels_of(bytes(contents.numpy()), channels))
    function = functools.partial(_pixels_or_none, channels=channels)
    image = tf.numpy_function(function, [contents], tf.uint8, stateful=False)
    return tf.ensure_shape(image, [None, None, channels])


def _pixels_or_none(contents: bytes, channels: int) -> np.ndarray:
    """Without pixels, resizing fails; TensorFlow would print an error raised here."""
    try:
        return pixels_of(contents, channels)
    except (BadImage, tf.errors.OpError):
        return np.zeros((0, 0, channels), np.uint8)
