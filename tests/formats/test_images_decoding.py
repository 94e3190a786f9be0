"""Every kind of file that TensorFlow decodes, as 1, 3 and 4 channels."""

import io

import numpy as np
import pytest
import tensorflow as tf
from image_cases import one, pixels, read_all, reference, takes, write_jpeg, write_png
from PIL import Image

from keras_mgpu_strategy.formats.images.input import Images

SIZE = (6, 5)
COLORS = pixels(9, 7).numpy()
GRAY = tf.image.rgb_to_grayscale(COLORS).numpy()
ALPHA = np.arange(63, dtype=np.uint8).reshape(9, 7, 1)


def resized(image):
    return tf.image.resize(image, SIZE).numpy()


def save(path, image, mode=None, **kwargs):
    """Writes a file with Pillow, which knows more kinds than TensorFlow writes."""
    pillow = Image.fromarray(np.squeeze(image))
    (pillow if mode is None else pillow.convert(mode)).save(path, **kwargs)
    return path


@pytest.mark.parametrize("channels", [1, 3, 4])
@pytest.mark.parametrize("image", [GRAY, COLORS, np.dstack([COLORS, ALPHA])])
def test_png_is_as_in_keras(image, channels, tmp_path):
    path = write_png(tmp_path / "a.png", image)
    expected = reference(path, SIZE, channels)
    np.testing.assert_array_equal(one(path, *SIZE, channels), expected)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("image", [GRAY, COLORS])
def test_jpeg_is_as_in_keras(image, channels, tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", image)
    expected = reference(path, SIZE, channels)
    np.testing.assert_array_equal(one(path, *SIZE, channels), expected)


def test_opaque_where_a_file_has_no_alpha(tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", COLORS)
    rgba = one(path, *SIZE, 4)
    np.testing.assert_array_equal(rgba[..., :3], reference(path, SIZE))
    assert (rgba[..., 3] == 255).all()


def test_16_bits_become_8(tmp_path):
    deep = COLORS.astype(np.uint16) * 256 + 77
    path = write_png(tmp_path / "a.png", deep)
    np.testing.assert_array_equal(one(path, *SIZE, 3), resized(COLORS))


def test_palettes_become_colors(tmp_path):
    path = save(tmp_path / "a.png", COLORS, "P")
    with Image.open(path) as opened:
        expected = np.asarray(opened.convert("RGB"))
    np.testing.assert_array_equal(one(path, *SIZE, 3), resized(expected))


def test_cmyk_becomes_colors(tmp_path):
    path = save(tmp_path / "a.jpg", COLORS, "CMYK", quality=100)
    np.testing.assert_allclose(one(path, *SIZE, 3), resized(COLORS), atol=8)
    np.testing.assert_allclose(one(path, *SIZE, 1), resized(GRAY), atol=8)
    np.testing.assert_allclose(one(path, *SIZE, 4)[..., :3], resized(COLORS), atol=8)


def test_bmp(tmp_path):
    path = save(tmp_path / "a.bmp", COLORS)
    np.testing.assert_array_equal(one(path, *SIZE, 3), resized(COLORS))
    np.testing.assert_array_equal(one(path, *SIZE, 1), resized(GRAY))
    assert (one(path, *SIZE, 4)[..., 3] == 255).all()


@pytest.mark.skipif(not hasattr(tf.image, "decode_webp"), reason="older TensorFlow")
def test_webp(tmp_path):
    image = np.dstack([COLORS, ALPHA + 1])
    folder = tmp_path / "images"
    folder.mkdir()
    save(folder / "a.webp", image, lossless=True)
    save(folder / "b.webp", COLORS, lossless=True)
    source = Images(folder).open_rows(takes(9, 7, 4))
    opaque = np.dstack([COLORS, np.full_like(ALPHA, 255)])
    np.testing.assert_array_equal(read_all(source), [image, opaque])
    gray = read_all(Images(folder).open_rows(takes(9, 7, 1)))
    np.testing.assert_array_equal(gray, [GRAY, GRAY])


def test_gif_of_several_frames_is_its_first_one(tmp_path):
    black, *others = [
        Image.fromarray(np.full((9, 7), value, np.uint8)) for value in (0, 128, 255)
    ]
    path = tmp_path / "a.gif"
    black.save(path, save_all=True, append_images=others)
    with Image.open(path) as opened:
        assert opened.n_frames == 3
    for channels in (1, 3):
        np.testing.assert_array_equal(one(path, *SIZE, channels), 0)


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp", "a.gif", "a", "a.txt"])
def test_the_content_decides(name, tmp_path):
    path = write_png(tmp_path / name, COLORS)
    np.testing.assert_array_equal(one(path, *SIZE, 3), resized(COLORS))


def test_large_images_become_small(tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", pixels(700, 900))
    np.testing.assert_array_equal(one(path, *SIZE, 3), reference(path, SIZE))


def test_one_pixel_becomes_large(tmp_path):
    path = write_png(tmp_path / "a.png", COLORS[:1, :1])
    np.testing.assert_array_equal(
        one(path, 30, 20, 3), np.broadcast_to(COLORS[0, 0], (30, 20, 3))
    )


def test_odd_names(tmp_path):
    names = ["a b.png", "ünï.png", "a'b\"c.png", "[*]?.png", "{}%s.png", "a\nb.png"]
    for name in names:
        write_png(tmp_path / name, COLORS)
    source = Images(tmp_path).open_rows(takes(*SIZE, 3))
    assert list(source.marks(0, len(names)).names) == sorted(names)
    [batch] = source.batches(10)
    np.testing.assert_array_equal(batch.inputs, np.stack([resized(COLORS)] * 6))


def test_a_name_that_is_not_unicode(tmp_path):
    buffer = io.BytesIO()
    Image.fromarray(COLORS).save(buffer, "png")
    (tmp_path / "a\udcff.png").write_bytes(buffer.getvalue())
    source = Images(tmp_path).open_rows(takes(*SIZE, 3))
    assert next(source.batches(1)).inputs.shape == (1, *SIZE, 3)
    assert source.marks(0, 1).names == ["a\\xff.png"]
