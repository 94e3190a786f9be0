"""From the bytes of any image file to pixels, in Python: a decoder for each format.

Guarantees:

* TensorFlow decodes what it decodes correctly, always with the number of channels that
  a file was found to have: left to find out, it writes past its memory for some
  animations, which crashes the process.
* The rest is decoded by Pillow, an extra: whether it is installed decides if such a
  file can be read, never what is read.
* A file that cannot be decoded is a `BadImage` or a TensorFlow error.
"""

import io
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.formats.images.contents import (
    BadImage,
    check_scans,
    check_size,
    ended_png,
    first_gif_frame,
    is_animated_webp,
    plain_bmp,
    png_size,
    webp_size,
)
from keras_mgpu_strategy.system.extras import import_extra

Decode = Callable[[bytes, int], np.ndarray]
"""Takes a file and the channels asked for; the image may have others."""

_GIF_USE = "A GIF file read as RGBA, or with a first frame that does not fill it,"

_GRAY_AT_A_TIME = 2**22

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
"""How such files begin."""


def decode_in_python(contents: bytes, channels: int) -> np.ndarray:
    """Decodes an image file of any format.

    Args:
        contents: The file.
        channels: 1, 3 or 4.

    Returns:
        An array of shape `(height, width, channels)`, uint8.

    Raises:
        BadImage: It is not an image, takes too much memory, or needs Pillow.
        tf.errors.OpError: TensorFlow cannot decode it.
    """
    kinds = [kind for kind in _DECODERS if contents.startswith(kind)]
    if not kinds:
        raise BadImage("it is not a PNG, JPEG, BMP, GIF or WebP file")
    # Otherwise what follows a decoder lands on the first GPU if that is the default.
    with tf.device("CPU:0"):
        return _with_channels(_DECODERS[kinds[0]](contents, channels), channels)


def _with_channels(image: np.ndarray, channels: int) -> np.ndarray:
    """Converts an image to the requested channels, as `tf.image` does."""
    if channels == 1 < image.shape[2]:
        # In blocks, since each pixel takes many bytes in between.
        blocks = np.array_split(image[:, :, :3], 1 + image.size // _GRAY_AT_A_TIME)
        return np.concatenate([tf.image.rgb_to_grayscale(b).numpy() for b in blocks])
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
    plain = plain_bmp(contents)
    if plain is None:
        use = "A BMP file with a palette, color masks or compressed pixels"
        return _by_pillow(contents, "BMP", use)
    return tf.io.decode_bmp(*plain).numpy()


def _webp(contents: bytes, channels: int) -> np.ndarray:
    check_size(*webp_size(contents), 4)
    if is_animated_webp(contents):
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


_DECODERS: dict[bytes, Decode] = {
    JPEG: _jpeg,
    PNG: _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
}
