"""Files that TensorFlow decodes wrongly, or calls damaged though readers take them."""

import io
import re
import struct
import sys
import zlib

import keras
import numpy as np
import pytest
import tensorflow as tf
from image_cases import missing_rows, one, pixels, read_all, reference, takes
from PIL import Image

from keras_mgpu_strategy.formats.images.input import Images

HEIGHT, WIDTH = 6, 5
SIZE = (HEIGHT, WIDTH)
COLORS = pixels(*SIZE).numpy()
INDICES = np.arange(HEIGHT * WIDTH, dtype=np.uint8).reshape(SIZE)
PALETTE = np.random.default_rng(0).integers(0, 256, (256, 3), np.uint8)
TRANSPARENT = 7


def read(path, contents, channels=3):
    """Reads one file of the size of COLORS."""
    path.write_bytes(contents)
    return one(path, *SIZE, channels)


def read_each(folder, files, channels=3, **kwargs):
    """Reads files of the size of COLORS, of given contents, in order."""
    paths = [folder / f"{number}.image" for number in range(len(files))]
    for path, contents in zip(paths, files, strict=True):
        path.write_bytes(contents)
    source = Images(paths, **kwargs).open_rows(takes(*SIZE, channels))
    return read_all(source), missing_rows(source)


def saved(image, kind, **kwargs):
    """What Pillow writes."""
    buffer = io.BytesIO()
    image = image if isinstance(image, Image.Image) else Image.fromarray(image)
    image.save(buffer, kind, **kwargs)
    return buffer.getvalue()


def indexed(indices=INDICES, palette=PALETTE):
    image = Image.fromarray(indices, "P")
    image.putpalette(palette.tobytes())
    return image


def bmp(rows, bits, *, compression=0, between=b"", height=HEIGHT, size=None):
    """A BMP file of stored rows, the first one given at the top."""
    rows = [row + bytes(-len(row) % 4) for row in rows]
    body = b"".join(rows[::-1]) if size is None else size
    offset = 54 + len(between)
    header = struct.pack("<IiiHHI", 40, WIDTH, height, 1, bits, compression)
    head = b"BM" + struct.pack("<IHHI", offset + len(body), 0, 0, offset)
    return head + header + struct.pack("<IiiII", len(body), 0, 0, 0, 0) + between + body


def table(palette):
    """A palette as in BMP files: blue, green, red and an unused byte."""
    return np.insert(palette[:, ::-1], 3, 0, axis=1).astype(np.uint8).tobytes()


def packed(bits):
    """Rows of indices of a few bits each."""
    planes = np.unpackbits(INDICES[..., np.newaxis], axis=-1)[..., -bits:]
    return [row.tobytes() for row in np.packbits(planes.reshape(HEIGHT, -1), axis=1)]


@pytest.mark.parametrize("bits", [1, 4, 8])
def test_bmp_palettes_become_colors(bits, tmp_path):
    contents = bmp(packed(bits), bits, between=table(PALETTE[: 2**bits]))
    expected = PALETTE[INDICES & (2**bits - 1)]
    np.testing.assert_array_equal(read(tmp_path / "a.bmp", contents), expected)
    rgba = read(tmp_path / "a.bmp", contents, 4)
    np.testing.assert_array_equal(rgba, np.insert(expected, 3, 255, axis=2))
    gray = tf.image.rgb_to_grayscale(expected).numpy()
    np.testing.assert_array_equal(read(tmp_path / "a.bmp", contents, 1), gray)


PURE = 255 * np.eye(3, dtype=np.uint8)[INDICES % 3]


@pytest.mark.parametrize(
    ("bits", "masks"),
    [
        (16, None),
        (16, (0xF800, 0x7E0, 0x1F)),
        (32, (0xFF000000, 0xFF0000, 0xFF00)),
        (32, (0xFF0000, 0xFF00, 0xFF)),
    ],
)
def test_bmp_color_masks(bits, masks, tmp_path):
    values = np.array(masks or (0x7C00, 0x3E0, 0x1F), np.uint32)
    rows = values[INDICES % 3].astype(f"<u{bits // 8}")
    between = struct.pack("<III", *masks) if masks else b""
    contents = bmp(
        map(np.ndarray.tobytes, rows),
        bits,
        compression=3 if masks else 0,
        between=between,
    )
    np.testing.assert_array_equal(read(tmp_path / "a.bmp", contents), PURE)


def test_unusual_bmp_color_masks(tmp_path):
    masks = struct.pack("<III", 0xF0, 0xF, 0xFF00)
    rows = [bytes(4 * WIDTH)] * HEIGHT
    with pytest.raises(ValueError, match="Unsupported BMP bitfields layout"):
        read(tmp_path / "a.bmp", bmp(rows, 32, compression=3, between=masks))


def test_bmp_rows_that_are_compressed(tmp_path):
    runs = b"".join(
        b"".join(bytes([1, index]) for index in row) + b"\0\0" for row in INDICES[::-1]
    )
    contents = bmp([], 8, compression=1, between=table(PALETTE), size=runs + b"\0\1")
    expected = PALETTE[INDICES]
    np.testing.assert_array_equal(read(tmp_path / "a.bmp", contents), expected)


def test_bmp_of_os2(tmp_path):
    rows = [row[:, ::-1].tobytes() + b"\0" for row in COLORS[::-1]]
    header = struct.pack("<IHHHH", 12, WIDTH, HEIGHT, 1, 24)
    head = b"BM" + struct.pack("<IHHI", 26 + 16 * HEIGHT, 0, 0, 26)
    contents = head + header + b"".join(rows)
    np.testing.assert_array_equal(read(tmp_path / "a.bmp", contents), COLORS)


@pytest.mark.parametrize("height", [HEIGHT, -HEIGHT])
@pytest.mark.parametrize("channels", [3, 4])
def test_bmp_rows_up_and_down(height, channels, tmp_path):
    image = np.concatenate([COLORS, COLORS[..., :1]], axis=2)[..., :channels]
    stored = image[..., [2, 1, 0, 3][:channels]]
    rows = [row.tobytes() for row in (stored if height > 0 else stored[::-1])]
    contents = bmp(rows, 8 * channels, height=height)
    found = read(tmp_path / "a.bmp", contents, channels)
    np.testing.assert_array_equal(found, image)
    np.testing.assert_array_equal(found, reference(tmp_path / "a.bmp", SIZE, channels))


@pytest.mark.parametrize("mode", ["RGB", "RGBA", "L"])
def test_bytes_after_the_pixels_of_a_bmp(mode, tmp_path):
    contents = saved(Image.fromarray(COLORS).convert(mode), "BMP")
    files = [contents + more for more in (b"", b"\0", b"\0\0", bytes(1000))]
    rows, _ = read_each(tmp_path, files)
    np.testing.assert_array_equal(rows, np.stack(4 * [rows[0]]))
    with pytest.raises(ValueError, match="it has .* bytes, expected"):
        read(tmp_path / "a.bmp", contents[:-1])


def test_a_bmp_palette_of_grays_needs_no_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    grays = np.repeat(np.arange(256, dtype=np.uint8)[:, np.newaxis], 3, axis=1)
    contents = bmp(packed(8), 8, between=table(grays))
    found = read(tmp_path / "a.bmp", contents, 1)
    np.testing.assert_array_equal(found[..., 0], INDICES)


@pytest.mark.parametrize("channels", [1, 3])
def test_transparent_pixels_of_a_gif_are_black_as_in_keras(channels, tmp_path):
    contents = saved(indexed(), "GIF", transparency=TRANSPARENT)
    found = read(tmp_path / "a.gif", contents, channels)
    expected = np.where(INDICES[..., np.newaxis] == TRANSPARENT, 0, PALETTE[INDICES])
    if channels == 1:
        expected = tf.image.rgb_to_grayscale(expected.astype(np.uint8))
    else:
        np.testing.assert_array_equal(found, reference(tmp_path / "a.gif", SIZE))
    np.testing.assert_array_equal(found, expected)


def test_transparent_pixels_of_a_gif_as_rgba(tmp_path):
    contents = saved(indexed(), "GIF", transparency=TRANSPARENT)
    found = read(tmp_path / "a.gif", contents, 4)
    is_opaque = INDICES[..., np.newaxis] != TRANSPARENT
    expected = np.where(is_opaque, np.insert(PALETTE[INDICES], 3, 255, axis=2), 0)
    np.testing.assert_array_equal(found, expected)


def framed(gif, left, top):
    """The same frame somewhere in a larger picture."""
    width, height = struct.unpack_from("<HH", gif, 6)
    place = gif.index(b"\x2c" + struct.pack("<HHHH", 0, 0, width, height))
    size = struct.pack("<HH", width + left + 1, height + top + 2)
    moved = struct.pack("<HH", left, top)
    return gif[:6] + size + gif[10 : place + 1] + moved + gif[place + 5 :]


@pytest.mark.parametrize("channels", [3, 4])
def test_a_gif_frame_that_does_not_fill_the_picture(channels, tmp_path):
    small = saved(indexed(INDICES[:3, :2]), "GIF", transparency=6)
    found = read(tmp_path / "a.gif", framed(small, 2, 1), channels)
    expected = np.zeros((*SIZE, 4), np.uint8)
    expected[1:4, 2:4] = np.insert(PALETTE[INDICES[:3, :2]], 3, 255, axis=2)
    expected[2, 3] = 0
    assert INDICES[1, 1] == 6
    np.testing.assert_array_equal(found, expected[..., :channels])


def test_only_the_first_frame_of_a_gif_is_unpacked(tmp_path):
    """What follows may be huge frames, or no frames at all."""
    contents = saved(indexed(), "GIF")
    assert contents[-1:] == b";"
    huge = struct.pack("<BHHHHB", 0x2C, 0, 0, 65_535, 65_535, 0) + b"\x08\x00"
    ends = (b"", b";", b"no frame", huge + b";", 1000 * huge)
    rows, _ = read_each(tmp_path, [contents[:-1] + end for end in ends])
    np.testing.assert_array_equal(rows, np.stack(5 * [PALETTE[INDICES]]))


def chunk(kind, body=b""):
    whole = kind + body
    return struct.pack(">I", len(body)) + whole + struct.pack(">I", zlib.crc32(whole))


def png_in_parts(num_parts):
    """A PNG file whose pixels lie in several chunks."""
    head = struct.pack(">IIBBBBB", WIDTH, HEIGHT, 8, 2, 0, 0, 0)
    rows = b"".join(b"\0" + row.tobytes() for row in COLORS)
    data = np.array_split(np.frombuffer(zlib.compress(rows), np.uint8), num_parts)
    parts = [chunk(b"IDAT", part.tobytes()) for part in data]
    return [b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", head), *parts]


def test_png_files_without_their_end(tmp_path):
    pixels = b"".join(png_in_parts(3))
    ends = [chunk(b"IEND")[:num_bytes] for num_bytes in range(12)]
    text = chunk(b"tEXt", b"Title\0A picture")
    files = [pixels + more + end for more in (b"", text) for end in ends]
    rows, _ = read_each(tmp_path, files)
    np.testing.assert_array_equal(rows, np.stack([COLORS] * 24))


def test_bytes_after_the_end_of_a_png_file(tmp_path):
    contents = b"".join(png_in_parts(1)) + chunk(b"IEND") + b"more"
    np.testing.assert_array_equal(read(tmp_path / "a.png", contents), COLORS)


def test_png_files_without_all_their_pixels(tmp_path):
    parts = png_in_parts(3)
    ends = [(b"", chunk(b"IEND"), parts[number][:-1]) for number in range(1, 4)]
    files = [
        b"".join(parts[:number]) + end
        for number in range(1, 4)
        for end in ends[number - 1]
    ]
    rows, missing = read_each(tmp_path, files, on_bad_file="skip")
    assert missing == list(range(9)) and not rows.any()
    with pytest.raises(ValueError, match="cannot be decoded: it is cut off. Replace"):
        read(tmp_path / "a.png", files[0])
    with pytest.raises(ValueError, match="cannot be decoded: Invalid PNG data"):
        read(tmp_path / "a.png", files[4])


def animation(**kwargs):
    frames = [Image.fromarray(np.roll(COLORS, k, 0)) for k in range(3)]
    more = {"save_all": True, "append_images": frames[1:], "lossless": True}
    return saved(frames[0], "WEBP", **more, **kwargs)


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_the_first_frame_of_an_animated_webp(channels, tmp_path):
    found = read(tmp_path / "a.webp", animation(), channels)
    gray = tf.image.rgb_to_grayscale(COLORS).numpy()
    expected = {1: gray, 3: COLORS, 4: np.insert(COLORS, 3, 255, axis=2)}
    np.testing.assert_array_equal(found, expected[channels])


@pytest.mark.skipif(not hasattr(tf.image, "decode_webp"), reason="older TensorFlow")
@pytest.mark.parametrize("lossless", [False, True])
def test_pillow_reads_webp_as_tensorflow_does(lossless, tmp_path, monkeypatch):
    images = [COLORS, np.insert(COLORS, 3, 99, axis=2), pixels(*SIZE, seed=1).numpy()]
    for image in images:
        contents = saved(image, "WEBP", lossless=lossless, exact=True)
        found = read(tmp_path / "a.webp", contents, 4)
        with monkeypatch.context() as patch:
            patch.delattr(tf.image, "decode_webp")
            by_pillow = read(tmp_path / "a.webp", contents, 4)
        np.testing.assert_array_equal(found, by_pillow)


NEED_PILLOW = {
    "An animated WebP file": animation(),
    "A BMP file with a palette": bmp(packed(8), 8, between=table(PALETTE)),
    "A GIF file read as RGBA": framed(saved(indexed(), "GIF"), 1, 1),
}


@pytest.mark.parametrize("use", NEED_PILLOW)
def test_what_needs_pillow_says_so(use, tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    path = tmp_path / "a.image"
    message = f"{use}.* needs the package PIL.*" + re.escape("keras_mgpu_strategy[im")
    with pytest.raises(ValueError, match=f"Row 0: .*: {message}"):
        read(path, NEED_PILLOW[use])
    source = Images([path], on_bad_file="skip").open_rows(takes(*SIZE, 3))
    assert not read_all(source).any() and missing_rows(source) == [0]


def test_jpeg_differs_from_pillow_by_the_fast_transform_alone(tmp_path):
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    for subsampling in (0, 1, 2):
        contents = saved(image, "JPEG", quality=95, subsampling=subsampling)
        expected = np.asarray(Image.open(io.BytesIO(contents)), int)
        path = tmp_path / "a.jpg"
        path.write_bytes(contents)
        found = one(path, 64, 64, 3)
        np.testing.assert_array_equal(found, reference(path, (64, 64)))
        assert 1 < np.abs(found - expected).max() < 40
        exact = tf.io.decode_jpeg(contents, 3, dct_method="INTEGER_ACCURATE")
        np.testing.assert_allclose(exact, expected, atol=1)


@pytest.mark.parametrize("progressive", [False, True])
def test_jpeg_files_without_their_end_are_bad_for_all(progressive, tmp_path):
    """A JPEG file has no checksum, so nothing shows whether all pixels are there."""
    image = np.random.default_rng(0).integers(0, 256, (64, 64, 3), np.uint8)
    contents = saved(image, "JPEG", progressive=progressive)
    for num_bytes in (1, 2, 3, 20):
        path = tmp_path / str(num_bytes) / "a.jpg"
        path.parent.mkdir()
        path.write_bytes(contents[:-num_bytes])
        for channels in (1, 3, 4):
            with pytest.raises(ValueError, match="Row 0: .* cannot be decoded: "):
                one(path, 64, 64, channels)
        theirs = keras.utils.image_dataset_from_directory(
            path.parent, labels=None, verbose=False
        )
        with pytest.raises(tf.errors.InvalidArgumentError):
            next(iter(theirs))
        with Image.open(path) as opened, pytest.raises(OSError, match="truncated"):
            opened.load()


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_what_looks_like_scans_of_a_jpeg_file(channels, tmp_path):
    """A thumbnail, and a video after the picture, as phones write them."""
    path = tmp_path / "a.jpg"
    path.write_bytes(saved(COLORS, "JPEG", progressive=True))
    expected = one(path, *SIZE, channels)
    contents, scans = path.read_bytes(), b"\xff\xda" * 200
    thumbnail = b"\xff\xe9" + struct.pack(">H", 2 + len(scans)) + scans
    path.write_bytes(contents[:2] + b"\xff" + thumbnail + contents[2:] + scans)
    np.testing.assert_array_equal(one(path, *SIZE, channels), expected)


def write_all_kinds(folder):
    """Files of all kinds that `image_dataset_from_directory` decodes correctly."""
    color = Image.fromarray(COLORS)
    alpha = Image.fromarray(np.insert(COLORS, 3, INDICES * 8, axis=2))
    for mode in ("1", "L", "LA", "RGB", "RGBA", "P"):
        alpha.convert(mode).save(folder / f"{mode}.png")
    indexed().save(folder / "transparent.png", transparency=TRANSPARENT)
    Image.fromarray(INDICES.astype(np.uint16) * 999).save(folder / "16.png")
    for mode in ("L", "RGB", "CMYK"):
        color.convert(mode).save(folder / f"{mode}.jpg")
    color.save(folder / "progressive.jpg", progressive=True, subsampling=0)
    color.save(folder / "rgb.jpg", keep_rgb=True)
    for mode in ("RGB", "RGBA", "L"):
        alpha.convert(mode).save(folder / f"{mode}.bmp")
    indexed().save(folder / "a.gif", transparency=TRANSPARENT)
    color.save(folder / "b.gif", save_all=True, append_images=[color.rotate(180)])
    (folder / "png.jpg").write_bytes((folder / "RGB.png").read_bytes())


@pytest.mark.parametrize("size", [SIZE, (11, 4)])
@pytest.mark.parametrize("mode", ["rgb", "rgba", "grayscale"])
def test_all_kinds_are_as_in_keras(mode, size, tmp_path):
    write_all_kinds(tmp_path)
    refused = {"rgb": "", "rgba": r".*\.(jpg|gif)", "grayscale": r".*(bmp|gif)|CMYK.*"}
    for path in [p for p in tmp_path.iterdir() if re.fullmatch(refused[mode], p.name)]:
        path.unlink()
    theirs = keras.utils.image_dataset_from_directory(
        tmp_path,
        labels=None,
        color_mode=mode,
        image_size=size,
        shuffle=False,
        verbose=False,
    )
    images = Images(tmp_path, image_size=size, color_mode=mode).open_rows(None)
    ours = read_all(images)
    expected = np.concatenate([batch.numpy() for batch in theirs])
    assert len(expected) >= 8
    np.testing.assert_array_equal(ours, expected)
