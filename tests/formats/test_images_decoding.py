"""Every file format that TensorFlow decodes, as 1, 3 and 4 channels."""

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
    """Writes a file with Pillow, which writes more formats than TensorFlow."""
    pillow = Image.fromarray(np.squeeze(image))
    (pillow if mode is None else pillow.convert(mode)).save(path, **kwargs)
    return path


def test_files_without_alpha_are_opaque(tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", COLORS)
    rgba = one(path, *SIZE, 4)
    np.testing.assert_array_equal(rgba[..., :3], reference(path, SIZE))
    assert (rgba[..., 3] == 255).all()


def test_cmyk_becomes_colors(tmp_path):
    path = save(tmp_path / "a.jpg", COLORS, "CMYK", quality=100)
    np.testing.assert_allclose(one(path, *SIZE, 3), resized(COLORS), atol=8)
    np.testing.assert_allclose(one(path, *SIZE, 1), resized(GRAY), atol=8)
    np.testing.assert_allclose(one(path, *SIZE, 4)[..., :3], resized(COLORS), atol=8)


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


@pytest.mark.parametrize("name", ["a.jpg", "a.bmp", "a.gif", "a", "a.txt"])
def test_the_content_decides(name, tmp_path):
    path = write_png(tmp_path / name, COLORS)
    np.testing.assert_array_equal(one(path, *SIZE, 3), resized(COLORS))


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
