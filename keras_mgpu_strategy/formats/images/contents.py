"""Pixels of the image files that a graph of TensorFlow does not decode as it should.

A file's bytes are checked before a decoder sees them: claimed lengths against the file.
What cannot be an image of its format, or would take more than `MAX_BYTES`, is a
`BadImage`. TensorFlow is told a file's channels: else some animations crash it.
"""

import io
import struct
from collections.abc import Callable

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.system.extras import import_extra

MAX_BYTES = 2**29
"""The most bytes that the pixels of one image may take, one per channel."""

MAX_SCANS = 100
"""Of one JPEG file, as in browsers; encoders write about ten. A scan of a few bytes
takes time for all pixels."""

JPEG, PNG = b"\xff\xd8\xff", b"\x89PNG\r\n\x1a\n"
"""How such files begin."""

JPEG_SCAN, PNG_END = b"\xff\xda", b"\0\0\0\0IEND\xaeB\x60\x82"
"""How a scan begins, and how a PNG file ends."""

_NO_SEGMENT = (0x00, 0x01, *range(0xD0, 0xD9))
_JPEG_END = 0xD9
_BGR_MASKS = (0xFF0000, 0xFF00, 0xFF)
_GRAY_AT_A_TIME = 2**22


class BadImage(ValueError):
    """The reason lies in the file."""


def pixels_of(contents: bytes, channels: int) -> np.ndarray:
    """Returns uint8 `(height, width, channels)`; or raises `BadImage`, `OpError`."""
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
    _check_size(width, height, 3)
    # What looks like a scan may be in a thumbnail, or in a video after the picture.
    likely = contents.count(JPEG_SCAN)
    if likely > MAX_SCANS and (scans := _num_scans(contents)) > MAX_SCANS:
        raise BadImage(f"it has {scans} scans, expected at most {MAX_SCANS}")
    # Keras' gray is the one in the file, which CMYK does not have.
    decoded = 1 if channels == 1 and stored < 4 else 3
    return tf.io.decode_image(contents, decoded).numpy()


def _num_scans(jpeg: bytes) -> int:
    position, scans = 2, 0
    while 0 <= (position := jpeg.find(b"\xff", position)) < len(jpeg) - 3:
        marker = jpeg[position + 1]
        if marker == _JPEG_END:
            break
        if marker == 0xFF:
            position += 1
        elif marker in _NO_SEGMENT:
            position += 2
        else:
            scans += marker == JPEG_SCAN[1]
            position += 2 + _unpack(">H", jpeg, position + 2)[0]
    return scans


def _png(contents: bytes, channels: int) -> np.ndarray:
    width, height = _unpack(">II", contents, 16)
    _check_size(width, height, channels)
    ended = _ended_png(contents)
    try:
        return tf.io.decode_png(ended, channels).numpy()
    except tf.errors.InvalidArgumentError:
        if contents.startswith(ended):
            raise
        raise BadImage("it is cut off") from None


def _ended_png(png: bytes) -> bytes:
    """Returns the complete chunks of a PNG file, adding the last one if missing."""
    position = 8
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if position + 12 + length > len(png):
            break
        position += 12 + length
        if kind == b"IEND":
            return png[:position]
    return png[:position] + PNG_END


def _gif(contents: bytes, channels: int) -> np.ndarray:
    frame, fills = _first_gif_frame(contents)
    if fills and channels != 4:
        return tf.io.decode_gif(frame).numpy()[0]
    use = "A GIF file read as RGBA, or with a first frame that does not fill it,"
    pixels = _by_pillow(frame, "GIF", use)
    # As in TensorFlow, and so in Keras.
    return np.where(pixels[:, :, 3:] == 0, np.uint8(0), pixels)


def _first_gif_frame(gif: bytes) -> tuple[bytes, bool]:
    """Cuts a GIF file after its first frame; also says if that fills the picture."""
    width, height, flags = _unpack("<HHB", gif, 6)
    position = 13 + _gif_colors(flags)
    while (kind := _unpack("B", gif, position)[0]) == 0x21:
        position = _after_gif_blocks(gif, position + 2)
    if kind != 0x2C:
        raise BadImage("it has no frame")
    *place, columns, rows, flags = _unpack("<HHHHB", gif, position + 1)
    _check_size(width, height, 3)
    _check_size(columns, rows, 3)
    end = _after_gif_blocks(gif, position + 11 + _gif_colors(flags))
    return gif[:end] + b";", (*place, columns, rows) == (0, 0, width, height)


def _gif_colors(flags: int) -> int:
    """Bytes of the color table that some flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_gif_blocks(gif: bytes, position: int) -> int:
    while length := _unpack("B", gif, position)[0]:
        position += 1 + length
    return position + 1


def _bmp(contents: bytes, channels: int) -> np.ndarray:
    if plain := _plain_bmp(contents):
        return tf.io.decode_bmp(*plain).numpy()
    use = "A BMP file with a palette, color masks or compressed pixels"
    return _by_pillow(contents, "BMP", use)


def _plain_bmp(bmp: bytes) -> tuple[bytes, int] | None:
    """A file up to its last pixel, and its channels; None if TensorFlow errs."""
    offset, header = _unpack("<II", bmp, 10)
    if header < 40:
        return None
    width, height, _, bits, compression = _unpack("<iiHHI", bmp, 18)
    if not _has_plain_pixels(bmp, header, bits, compression):
        return None
    channels = 4 if bits == 32 else 3
    _check_size(width, abs(height), channels)
    end = offset + (width * bits // 8 + 3) // 4 * 4 * abs(height)
    if end > len(bmp):
        raise BadImage(f"it has {len(bmp)} bytes, expected {end}")
    return bmp[:end], channels


def _has_plain_pixels(bmp: bytes, header: int, bits: int, compression: int) -> bool:
    if bits == 32 and compression == 3:
        return _unpack("<III", bmp, 54) == _BGR_MASKS
    if compression != 0 or bits != 8:
        return compression == 0 and bits in (24, 32)
    palette = bmp[14 + header :][:1024]
    return palette[::4] == palette[1::4] == palette[2::4] == bytes(range(256))


def _webp(contents: bytes, channels: int) -> np.ndarray:
    width, height, is_animated = _webp_size(contents)
    _check_size(width, height, 4)
    if is_animated:
        return _by_pillow(contents, "WEBP", "An animated WebP file")
    if not hasattr(tf.image, "decode_webp"):
        return _by_pillow(contents, "WEBP", "A WebP file, under this TensorFlow,")
    try:
        return tf.io.decode_image(contents, 3, expand_animations=False).numpy()
    except tf.errors.InvalidArgumentError:
        return tf.io.decode_image(contents, 4, expand_animations=False).numpy()


def _webp_size(webp: bytes) -> tuple[int, int, bool]:
    """Returns width, height, and whether the file says that it is an animation."""
    [kind] = _unpack("4s", webp, 12)
    if kind == b"VP8X":
        flags, *low_high = _unpack("<B3xHBHB", webp, 20)
        width, width_high, height, height_high = low_high
        size = width + (width_high << 16) + 1, height + (height_high << 16) + 1
        return *size, bool(flags & 2)
    if kind == b"VP8L":
        [packed] = _unpack("<I", webp, 21)
        return (packed & 0x3FFF) + 1, (packed >> 14 & 0x3FFF) + 1, False
    width, height = _unpack("<HH", webp, 26)
    return width & 0x3FFF, height & 0x3FFF, False


def _by_pillow(contents: bytes, kind: str, use: str) -> np.ndarray:
    """Decodes the first frame to colors and alpha."""
    try:
        pillow = import_extra("PIL.Image", "images", use)
        with pillow.open(io.BytesIO(contents), formats=[kind]) as image:
            # Some files of a few bytes are pictures of one color, or are cut off.
            most = max(2**26, 1000 * len(contents))
            _check_size(image.width, image.height, 4, most)
            return np.asarray(image.convert("RGBA"))
    except MemoryError:
        raise
    except Exception as error:
        # Its decoders raise whatever reading too far raises, such as IndexError.
        raise BadImage(str(error).rstrip(".")) from error


def _check_size(
    width: int, height: int, channels: int, num_bytes: int = MAX_BYTES
) -> None:
    """Checks that an image claims pixels, and at most `num_bytes` of them."""
    most = min(num_bytes, MAX_BYTES)
    if min(width, height) < 1 or width * height * channels > most:
        raise BadImage(
            f"it claims {width} x {height} pixels of {channels} channels, expected 1 "
            f"to {most} bytes of pixels"
        )


def _unpack(form: str, contents: bytes, position: int) -> tuple:
    try:
        return struct.unpack_from(form, contents, position)
    except struct.error:
        raise BadImage("it is cut off") from None


_DECODERS: dict[bytes, Callable[[bytes, int], np.ndarray]] = {
    JPEG: _jpeg,
    PNG: _png,
    b"GIF8": _gif,
    b"BM": _bmp,
    b"RIFF": _webp,
}
"""How files begin -> what decodes them, perhaps to other channels than requested."""
