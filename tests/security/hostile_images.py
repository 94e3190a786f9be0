"""Image files of every format, damaged ones, and a child that reads them."""

import io
import os
import random
import re
import resource
import struct
import zlib

import numpy as np
from PIL import Image

from keras_mgpu_strategy import files

PNG = b"\x89PNG\r\n\x1a\n"
_BYTES = (0, 1, 2, 3, 8, 12, 16, 0x7F, 0x80, 0xFE, 0xFF, 0xD8, 0xD9, 0xDA, 0xC0)
_NUMBERS = (0, 1, 2**15, 2**16 - 1, 2**16, 2**24, 2**29, 2**31 - 1, 2**31, 2**32 - 1)


def saved(image, kind, **kwargs):
    buffer = io.BytesIO()
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def chunk(kind, body=b""):
    whole = kind + body
    return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))


def png(width, height):
    """A picture that claims its size and holds one row of pixels."""
    head = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 2, 0, 0, 0))
    return PNG + head + chunk(b"IDAT", zlib.compress(bytes(100))) + chunk(b"IEND")


def animated_webp(height, width, **kwargs):
    """Three frames of noise, not transparent."""
    noise = np.random.default_rng(0).integers(0, 256, (3, height, width, 3), np.uint8)
    first, *others = map(Image.fromarray, noise)
    return saved(first, "WEBP", save_all=True, append_images=others, **kwargs)


def good_images():
    """A file of every kind that is decoded: kind -> contents."""
    noise = np.random.default_rng(0).integers(0, 256, (13, 17, 4), np.uint8)
    rgba = Image.fromarray(noise)
    rgb, gray, indexed = rgba.convert("RGB"), rgba.convert("L"), rgba.convert("P")
    modes = [rgba.convert(mode) for mode in ("1", "L", "LA", "RGB", "RGBA", "P")]
    found = {f"png {image.mode}": saved(image, "PNG") for image in modes}
    deep = Image.fromarray(noise[..., 0].astype(np.uint16) * 257)
    found["png of 16 bits"] = saved(deep, "PNG")
    found["png with transparent color"] = saved(indexed, "PNG", transparency=3)
    for image in (gray, rgb, rgba.convert("CMYK")):
        found[f"jpeg {image.mode}"] = saved(image, "JPEG")
        found[f"jpeg progressive {image.mode}"] = saved(image, "JPEG", progressive=True)
    found["jpeg restarting"] = saved(rgb, "JPEG", restart_marker_blocks=1)
    jpeg = found["jpeg RGB"]
    start = jpeg.index(b"\xff\xc0")
    found["jpeg of 12 bits"] = jpeg[: start + 4] + b"\x0c" + jpeg[start + 5 :]
    for kind in (0xC1, 0xC3, 0xC9, 0xCA):
        changed = jpeg[: start + 1] + bytes([kind]) + jpeg[start + 2 :]
        found[f"jpeg coded as {kind:x}"] = changed
    found["gif"] = saved(indexed, "GIF")
    found["gif transparent"] = saved(indexed, "GIF", transparency=3, interlace=0)
    frames = [indexed.rotate(90), indexed.rotate(180)]
    found["gif animated"] = saved(indexed, "GIF", save_all=True, append_images=frames)
    for image in (rgb, rgba, gray, indexed, modes[0]):
        found[f"bmp {image.mode}"] = saved(image, "BMP")
    for image in (rgb, rgba):
        found[f"webp {image.mode}"] = saved(image, "WEBP")
        found[f"webp lossless {image.mode}"] = saved(image, "WEBP", lossless=True)
    found["webp animated"] = animated_webp(13, 17)
    return found


def mutants(contents, count, seed):
    """Yields copies of a file with wrong bytes, numbers or stretches."""
    rng = random.Random(seed)
    for _ in range(count):
        changed = bytearray(contents)
        for _ in range(rng.choice((1, 1, 2, 5))):
            _change(changed, rng)
        yield _with_checksums(bytes(changed))


def _change(data, rng):
    # Changes to headers do most harm.
    end = min(len(data), 64) if rng.random() < 0.6 else len(data)
    at = rng.randrange(max(end, 1))
    number = rng.choice(_NUMBERS)
    stretch = [
        lambda: (at + 1, bytes([rng.choice(_BYTES)])),
        lambda: (at + 1, bytes([rng.randrange(256)])),
        lambda: (at + 2, struct.pack(rng.choice("<>") + "H", number % 2**16)),
        lambda: (at + 4, struct.pack(rng.choice("<>") + "I", number)),
        lambda: (at, rng.randbytes(rng.randrange(1, 9))),
        lambda: (at + rng.randrange(1, 30), b""),
        lambda: (at, bytes(data[: rng.randrange(1, 200)])),
        lambda: (len(data), b""),
    ]
    stop, new = rng.choice(stretch)()
    data[at:stop] = new


def _with_checksums(contents):
    """Fixes the checksums of PNG chunks, which would otherwise catch every change."""
    if not contents.startswith(PNG):
        return contents
    parts, at = [PNG], len(PNG)
    while at + 12 <= len(contents):
        [length] = struct.unpack_from(">I", contents, at)
        if at + 12 + length > len(contents):
            break
        parts.append(chunk(contents[at + 4 : at + 8], contents[at + 8 :][:length]))
        at += 12 + length
    return b"".join(parts) + contents[at:]


def huge_images():
    """Small files that claim far more pixels than they hold: kind -> contents."""
    good, huge = good_images(), 2**16 - 1
    found = {"png": png(60_000, 60_000), "png beyond int": png(2**31 - 1, 2**31 - 1)}
    for name in ("jpeg L", "jpeg RGB", "jpeg CMYK", "jpeg progressive RGB"):
        at = re.search(rb"\xff[\xc0\xc2]", good[name]).start() + 5
        found[name] = _put(good[name], at, ">HH", 60_000, 60_000)
    found["gif"] = _put(good["gif"], 6, "<HH", huge, huge)
    frame = good["gif"].index(b"\x2c" + struct.pack("<HHHH", 0, 0, 17, 13))
    found["gif frame"] = _put(good["gif"], frame + 5, "<HH", huge, huge)
    found["bmp"] = _put(good["bmp RGB"], 18, "<ii", 60_000, 60_000)
    found["bmp beyond int"] = _put(good["bmp RGBA"], 18, "<ii", 2**31 - 1, -(2**31))
    found["bmp with palette"] = _put(good["bmp P"], 18, "<ii", 60_000, 60_000)
    found["webp"] = _put(good["webp RGB"], 26, "<HH", 2**14 - 1, 2**14 - 1)
    found["webp lossless"] = _put(good["webp lossless RGB"], 21, "<I", 2**28 - 1)
    found["webp animated"] = _put(good["webp animated"], 24, "<HBHB", huge, 0, huge, 0)
    return found


def sparse_images():
    """Files that claim far more than they hold, but no gigabyte: kind -> contents."""
    good = good_images()
    return {
        "gif": _put(good["gif"], 6, "<HH", 8000, 9000),
        "bmp": _put(good["bmp P"], 18, "<ii", 8000, 9000),
        "webp": _put(good["webp animated"], 24, "<HBHB", 7999, 0, 8999, 0),
    }


def _put(contents, at, form, *values):
    changed = bytearray(contents)
    struct.pack_into(form, changed, at, *values)
    return bytes(changed)


def gif_of_frames(size, count):
    """A GIF file of many frames, each large but only a few bytes."""
    gif = saved(Image.new("P", (size, size)), "GIF")
    start = gif.index(b"\x2c" + struct.pack("<HHHH", 0, 0, size, size))
    return gif[:start] + gif[start:-1] * count + b";"


def jpeg_of_scans(count):
    """A gray JPEG file of `count` scans, one byte each."""
    noise = np.random.default_rng(0).integers(0, 256, (64, 64), np.uint8)
    jpeg = saved(Image.fromarray(noise), "JPEG", progressive=True)
    first = jpeg.index(b"\xff\xda")
    head, more = jpeg[: jpeg.index(b"\xff\xda", first + 2)], count - 1
    return head + b"\xff\xda\0\x08\x01\x01\0\x01\x3f\0\0" * more + b"\xff\xd9"


def read_twice(paths, color_mode, missing=None, megabytes=None):
    """Reads files that may be damaged, and exits: 0 if all went well.

    Args:
        paths: The files.
        color_mode: As for `files.Images`.
        missing: The rows that cannot be read; None if unknown.
        megabytes: Memory that reading may take; None for any.
    """
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    images = files.Images(paths, (4, 4), on_bad_file="skip", color_mode=color_mode)
    source = images.open_rows(None)
    rows, again = (
        np.concatenate([batch.inputs for batch in source.batches(64)]) for _ in range(2)
    )
    # Memory that was never written would differ between reads.
    assert np.array_equal(rows, again) and len(rows) == len(paths)
    found = np.flatnonzero(source.marks(0, len(paths)).missing)
    assert missing is None or found.tolist() == missing, found
    more = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert megabytes is None or more < 1024 * megabytes, f"{more // 1024} MB"
    os._exit(0)
