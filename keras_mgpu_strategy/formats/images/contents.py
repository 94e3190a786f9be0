"""Checks of an image file's bytes before a decoder sees them; nothing is decoded.

Claimed lengths are checked against the file. What cannot be an image of its format, or
would take more than `MAX_BYTES`, is a `BadImage`.
"""

import struct

MAX_BYTES = 2**29
"""The most bytes that the pixels of one image may take, one per channel."""

MAX_SCANS = 100
"""Of one JPEG file, as in browsers; encoders write about ten. A scan of a few bytes
takes time for all pixels."""

JPEG_SCAN = b"\xff\xda"
"""How a scan begins."""

_NO_SEGMENT = (0x00, 0x01, *range(0xD0, 0xD9))
_JPEG_END = 0xD9
_PNG_END = b"\0\0\0\0IEND\xaeB\x60\x82"
_BGR_MASKS = (0xFF0000, 0xFF00, 0xFF)


class BadImage(ValueError):
    """The reason lies in the file."""


def check_size(
    width: int, height: int, channels: int, num_bytes: int = MAX_BYTES
) -> None:
    """Checks that an image claims pixels, and at most `num_bytes` of them."""
    most = min(num_bytes, MAX_BYTES)
    if min(width, height) < 1 or width * height * channels > most:
        raise BadImage(
            f"it claims {width} x {height} pixels of {channels} channels, expected 1 "
            f"to {most} bytes of pixels"
        )


def check_scans(jpeg: bytes) -> None:
    """Checks that the pixels of a JPEG file are spread over at most `MAX_SCANS`."""
    # What looks like a scan may be in a thumbnail, or in a video after the picture.
    if jpeg.count(JPEG_SCAN) > MAX_SCANS and (scans := _num_scans(jpeg)) > MAX_SCANS:
        raise BadImage(f"it has {scans} scans, expected at most {MAX_SCANS}")


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


def ended_png(png: bytes) -> bytes:
    """Returns the complete chunks of a PNG file, adding the last one if missing."""
    position = 8
    while position + 12 <= len(png):
        length, kind = struct.unpack_from(">I4s", png, position)
        if position + 12 + length > len(png):
            break
        position += 12 + length
        if kind == b"IEND":
            return png[:position]
    return png[:position] + _PNG_END


def png_size(png: bytes) -> tuple[int, int]:
    """Returns width and height."""
    return _unpack(">II", png, 16)


def first_gif_frame(gif: bytes) -> tuple[bytes, bool]:
    """Cuts a GIF file after its first frame; also says if that fills the picture."""
    width, height, flags = _unpack("<HHB", gif, 6)
    position = 13 + _gif_colors(flags)
    while (kind := _unpack("B", gif, position)[0]) == 0x21:
        position = _after_gif_blocks(gif, position + 2)
    if kind != 0x2C:
        raise BadImage("it has no frame")
    *place, columns, rows, flags = _unpack("<HHHHB", gif, position + 1)
    check_size(width, height, 3)
    check_size(columns, rows, 3)
    end = _after_gif_blocks(gif, position + 11 + _gif_colors(flags))
    return gif[:end] + b";", (*place, columns, rows) == (0, 0, width, height)


def _gif_colors(flags: int) -> int:
    """Bytes of the color table that some flags announce."""
    return 3 * 2 ** ((flags & 7) + 1) if flags & 0x80 else 0


def _after_gif_blocks(gif: bytes, position: int) -> int:
    while length := _unpack("B", gif, position)[0]:
        position += 1 + length
    return position + 1


def plain_bmp(bmp: bytes) -> tuple[bytes, int] | None:
    """A file up to its last pixel, and its channels; None if TensorFlow errs."""
    offset, header = _unpack("<II", bmp, 10)
    if header < 40:
        return None
    width, height, _, bits, compression = _unpack("<iiHHI", bmp, 18)
    if not _has_plain_pixels(bmp, header, bits, compression):
        return None
    channels = 4 if bits == 32 else 3
    check_size(width, abs(height), channels)
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


def webp_size(webp: bytes) -> tuple[int, int, bool]:
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


def _unpack(form: str, contents: bytes, position: int) -> tuple:
    try:
        return struct.unpack_from(form, contents, position)
    except struct.error:
        raise BadImage("it is cut off") from None
