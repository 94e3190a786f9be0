"""From the path of an image file to a tensor, in a TensorFlow graph.

Pixels are exactly those of `keras.utils.image_dataset_from_directory`, except for BMP
and GIF files that it gets wrong. Content decides, never the suffix. TensorFlow is told
a file's channels: else some animations crash it. Pillow decodes what it cannot.
"""

import functools
import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.images.contents import (
    JPEG_SCAN,
    MAX_BYTES,
    MAX_SCANS,
    BadImage,
    check_scans,
    check_size,
    ended_png,
    first_gif_frame,
    plain_bmp,
    png_size,
    webp_size,
)
from keras_mgpu_strategy.formats.images.form import ImageForm
from keras_mgpu_strategy.system.extras import import_extra

Load = Callable[[tf.Tensor], tf.Tensor]
"""Takes the path of a file and returns the image, or fails: with TensorFlow's error, or
with `BadImage`, which only a call outside a graph raises."""

_JPEG, _PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
"""How such files begin."""
_PNG_END = b"IEND\xaeB\x60\x82"
_GIF_USE = "A GIF file read as RGBA, or with a first frame that does not fill it,"
_BMP_USE = "A BMP file with a palette, color masks or compressed pixels"
_GRAY_AT_A_TIME = 2**22


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
    """Returns uint8 `(height, width, channels)`; most files never reach Python."""
    return tf.cond(
        tf.cond(
            tf.equal(tf.strings.substr(contents, 0, len(_JPEG)), _JPEG),
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
    end = tf.maximum(tf.strings.length(contents) - len(_PNG_END), 0)
    size = tf.io.decode_raw(
        tf.strings.substr(head, 16, 8), tf.int32, little_endian=False
    )
    return (
        tf.equal(tf.strings.substr(head, 0, len(_PNG)), _PNG)
        & tf.equal(tf.strings.substr(contents, end, len(_PNG_END)), _PNG_END)
        & _fits(size, channels)
    )


def _fits(size: tf.Tensor, channels: int) -> tf.Tensor:
    # Products of the claimed sizes can overflow integers.
    is_small = tf.reduce_prod(tf.cast(size, tf.float64)) * channels <= MAX_BYTES
    return tf.reduce_all(size > 0) & is_small


def _decode_by_python(contents: tf.Tensor, channels: int) -> tf.Tensor:
    if tf.executing_eagerly():
        return tf.constant(_pixels(bytes(contents.numpy()), channels))
    function = functools.partial(_pixels_or_none, channels=channels)
    image = tf.numpy_function(function, [contents], tf.uint8, stateful=False)
    return tf.ensure_shape(image, [None, None, channels])


def _pixels_or_none(contents: bytes, channels: int) -> np.ndarray:
    """Without pixels, resizing fails; TensorFlow would print an error raised here."""
    try:
        return _pixels(contents, channels)
    except (BadImage, tf.errors.OpError):
        return np.zeros((0, 0, channels), np.uint8)


def _pixels(contents: bytes, channels: int) -> np.ndarray:
    kind = next(filter(contents.startswith, _DECODERS), None)
    if kind is None:
        raise BadImage("it is not a PNG, JPEG, BMP, GIF or WebP file")
    # Otherwise what follows a decoder lands on the first GPU if that is the default.
    with tf.device("CPU:0"):
        image = _DECODERS[kind](contents, channels)
        if channels == 1 < image.shape[2]:
            # In blocks, since each pixel takes many bytes in between.
            blocks = np.array_split(image[:, :, :3], 1 + image.size // _GRAY_AT_A_TIME)
            grays = [tf.image.rgb_to_grayscale(block).numpy() for block in blocks]
            return np.concatenate(grays)
    if channels <= image.shape[2]:
        return image[:, :, :channels]
    return np.concatenate([image, np.full_like(image[:, :, :1], 255)], axis=2)


def _jpeg(contents: bytes, channels: int) -> np.ndarray:
    height, width, stored = tf.io.extract_jpeg_shape(contents).numpy().tolist()
    check_size(width, height, 3)
    check_scans(contents)
    # Keras' gray is the one in the file, which CMYK does not have.
    decoded = 1 if channels == 1 and stored < 4 else 3
    return tf.io.decode_image(contents, decoded).numpy()


def _png(contents: bytes, channels: int) -> np.ndarray:
    check_size(*png_size(contents), channels)
    ended = ended_png(contents)
    try:
        return tf.io.decode_png(ended, channels).numpy()
    except tf.errors.InvalidArgumentError:
        if contents.startswith(ended):
            raise
        raise BadImage("it is cut off") from None


def _gif(contents: bytes, channels: int) -> np.ndarray:
    frame, fills = first_gif_frame(contents)
    if fills and channels != 4:
        return tf.io.decode_gif(frame).numpy()[0]
    pixels = _by_pillow(frame, "GIF", _GIF_USE)
    # As in TensorFlow, and so in Keras.
    return np.where(pixels[:, :, 3:] == 0, np.uint8(0), pixels)


def _bmp(contents: bytes, channels: int) -> np.ndarray:
    if plain := plain_bmp(contents):
        return tf.io.decode_bmp(*plain).numpy()
    return _by_pillow(contents, "BMP", _BMP_USE)


def _webp(contents: bytes, channels: int) -> np.ndarray:
    width, height, is_animated = webp_size(contents)
    check_size(width, height, 4)
    if is_animated:
        return _by_pillow(contents, "WEBP", "An animated WebP file")
    if not hasattr(tf.image, "decode_webp"):
        return _by_pillow(contents, "WEBP", "A WebP file, under this TensorFlow,")
    try:
        return tf.io.decode_image(contents, 3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        return tf.io.decode_image(contents, 4, expand_animations=False).numpy()


def _by_pillow(contents: bytes, kind: str, use: str) -> np.ndarray:
    """Decodes the first frame to colors and alpha."""
    try:
        pillow = import_extra("PIL.Image", "images", use)
        with pillow.open(io.BytesIO(contents), formats=[kind]) as image:
            # Some files of a few bytes are pictures of one color, or are cut off.
            most = max(2**26, 1000 * len(contents))
            check_size(image.width, image.height, 4, most)
            return np.asarray(image.convert("RGBA"))
    except MemoryError:
        raise
    except Exception as error:
        # Its decoders raise whatever reading too far raises, such as IndexError.
        raise BadImage(str(error).rstrip(".")) from error


_DECODERS: dict[bytes, Callable[[bytes, int], np.ndarray]] = {
    _JPEG: _jpeg,
    _PNG: _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
}
"""How files begin -> what decodes them, perhaps to other channels than requested."""
