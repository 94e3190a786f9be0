"""Files that cannot be decoded: named or skipped, never shifting another row."""

import os
import re

import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_cases import (
    missing_rows,
    pixels,
    read_all,
    references,
    takes,
    write_folder,
    write_jpeg,
    write_png,
)

from keras_mgpu_strategy.formats.images import source as image_source
from keras_mgpu_strategy.formats.images.contents import BadImage
from keras_mgpu_strategy.formats.images.form import ImageForm
from keras_mgpu_strategy.formats.images.input import Images
from keras_mgpu_strategy.formats.images.listing import find_images
from keras_mgpu_strategy.formats.images.source import ImageSource

NUM_IMAGES = 13
SIZE = (6, 5)
PNG = tf.io.encode_png(pixels(60, 50)).numpy()
JPEG = tf.io.encode_jpeg(pixels(60, 50)).numpy()
DAMAGES = {
    "empty": b"",
    "one byte": b"\x89",
    "text": b"This is not an image.\n",
    "png cut off": PNG[: len(PNG) // 2],
    "png header": PNG[:30],
    "jpeg cut off": JPEG[: len(JPEG) // 2],
    "jpeg header": JPEG[:4],
    "gif header": b"GIF89a",
    "bmp header": b"BM\x00\x00",
    "png with a wrong checksum": PNG[:50] + bytes([PNG[50] ^ 255]) + PNG[51:],
    "zeros": bytes(1000),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory):
    return write_folder(tmp_path_factory.mktemp("good"), NUM_IMAGES)


@pytest.fixture(scope="module")
def bad(tmp_path_factory):
    path = tmp_path_factory.mktemp("bad") / "bad.png"
    path.write_bytes(PNG[:100])
    return path


@pytest.fixture(scope="module")
def expected(good):
    return references(good, SIZE)


def open_rows(paths, **kwargs):
    return Images(paths, **kwargs).open_rows(takes(*SIZE, 3))


def with_bad(good, bad, rows):
    return [bad if row in rows else path for row, path in enumerate(good)]


def zeroed(expected, rows):
    result = expected.copy()
    result[list(rows)] = 0
    return result


@pytest.fixture(scope="module")
def damaged(tmp_path_factory):
    """A good file, followed by a damaged one of each kind."""
    folder = tmp_path_factory.mktemp("damaged")
    write_png(folder / "00.png", pixels(8, 8))
    for row, contents in enumerate(DAMAGES.values(), start=1):
        (folder / f"{row:02}.png").write_bytes(contents)
    return folder


@pytest.mark.parametrize("channels", [1, 3, 4])
def test_damaged_files_are_skipped(channels, damaged):
    images = Images(damaged, on_bad_file="skip")
    source = images.open_rows(takes(*SIZE, channels))
    rows = read_all(source)
    assert rows[0].any() and not rows[1:].any()
    assert missing_rows(source) == list(range(1, len(DAMAGES) + 1))


def test_damaged_files_are_errors(damaged):
    source = Images(damaged).open_rows(takes(*SIZE, 1))
    for row in range(1, len(DAMAGES) + 1):
        message = f"^Row {row}: the image file .*/{row:02}.png' cannot be decoded: "
        with pytest.raises(ValueError, match=message):
            next(source.batches(4, start=row))


@given(
    st.sets(st.integers(0, NUM_IMAGES - 1)),
    st.integers(1, NUM_IMAGES + 1),
    st.integers(0, NUM_IMAGES - 1),
)
@settings(
    max_examples=12,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_skipped_rows_shift_no_other(good, bad, expected, rows, batch_size, start):
    source = open_rows(with_bad(good, bad, rows), on_bad_file="skip")
    read = read_all(source, batch_size, start)
    np.testing.assert_array_equal(read, zeroed(expected, rows)[start:])
    assert missing_rows(source) == sorted(row for row in rows if row >= start)


def test_marks_are_known_for_each_batch_when_it_is_handed_out(good, bad):
    source = open_rows(with_bad(good, bad, {1, 6, 7}), on_bad_file="skip")
    found = []
    for batch in source.batches(4):
        missing = source.marks(batch.start, batch.start + batch.num_rows).missing
        found.append(None if missing is None else missing.tolist())
    no, yes = False, True
    assert found == [[no, yes, no, no], [no, no, yes, yes], None, None]


def test_no_row_is_marked_before_it_is_read(good, bad):
    source = open_rows(with_bad(good, bad, {12}), on_bad_file="skip")
    next(source.batches(2))
    assert source.marks(0, NUM_IMAGES).missing is None


@pytest.mark.parametrize(
    ("row", "batch_size"), [(0, 1), (0, 4), (1, 4), (4, 4), (4, 20), (12, 1), (12, 4)]
)
def test_rows_before_a_bad_file_are_handed_out(good, bad, expected, row, batch_size):
    batches = open_rows(with_bad(good, bad, {row, 12})).batches(batch_size)
    parts = []
    with pytest.raises(ValueError, match=f"^Row {row}: ") as caught:
        parts.extend(batch.inputs for batch in batches)
    read = np.concatenate([expected[:0], *parts])
    np.testing.assert_array_equal(read, expected[:row])
    assert isinstance(caught.value.__cause__, BadImage)


@pytest.mark.parametrize("start", [0, 1, 12])
def test_files_are_read_a_few_at_a_time(good, bad, expected, start, monkeypatch):
    monkeypatch.setattr(image_source, "_FIRST_FILES", 3)
    source = open_rows(with_bad(good, bad, {2, 7}), on_bad_file="skip")
    for batch_size in (1, 2, 3, 5, 20):
        rows = read_all(source, batch_size, start)
        np.testing.assert_array_equal(rows, zeroed(expected, {2, 7})[start:])
        assert missing_rows(source) == [row for row in (2, 7) if row >= start]


def test_a_folder_of_bad_files_is_not_read_to_its_end(tmp_path, monkeypatch):
    monkeypatch.setattr(image_source, "_FIRST_FILES", 4)
    monkeypatch.setattr(image_source, "_MOST_FILES", 8)
    num_good, tried = 12, []

    def pixels_of(path):
        tried.append(path)
        if int(np.asarray(path).item()[-6:-4]) >= num_good:
            raise BadImage("it is bad")
        return np.zeros((*SIZE, 3), np.float32)

    def load(path):
        image = tf.numpy_function(pixels_of, [path], tf.float32)
        return tf.ensure_shape(image, (*SIZE, 3))

    for row in range(90):
        (tmp_path / f"{row:02}.png").touch()
    form, files = ImageForm(*SIZE, 3), find_images(tmp_path, must_read=True)
    source = ImageSource(files, form, load, None, skips=False, settings=None)
    for start in (0, num_good):
        tried.clear()
        with pytest.raises(ValueError, match=f"^Row {num_good}: "):
            list(source.batches(2, start))
        assert len(tried) < 30


def test_the_message_says_what_to_do(good, bad):
    message = (
        f"Row 2: the image file {str(bad)!r} cannot be decoded: it is cut off. "
        "Replace or remove it, or pass on_bad_file='skip' to mark such rows as "
        "missing."
    )
    with pytest.raises(ValueError, match=f"^{re.escape(message)}$"):
        list(open_rows(with_bad(good, bad, {2})).batches(4, start=1))


def test_a_file_that_vanishes(tmp_path, expected):
    paths = write_folder(tmp_path, NUM_IMAGES)
    skipping = open_rows(tmp_path, on_bad_file="skip")
    raising = open_rows(tmp_path)
    paths[3].unlink()
    np.testing.assert_array_equal(read_all(skipping), zeroed(expected, [3]))
    assert missing_rows(skipping) == [3]
    with pytest.raises(ValueError, match="Row 3: .*: .*No such file or directory"):
        list(raising.batches(2))


def test_a_folder_and_a_missing_file_in_a_list(good, expected, tmp_path):
    folder = tmp_path / "x.png"
    folder.mkdir()
    source = open_rows([good[0], folder, good[2], "gone.png"], on_bad_file="skip")
    np.testing.assert_array_equal(read_all(source), zeroed(expected[:4], [1, 3]))
    assert missing_rows(source) == [1, 3]


def test_a_link_that_leads_nowhere(good, tmp_path):
    write_png(tmp_path / "a.png", pixels(8, 8))
    (tmp_path / "b.png").symlink_to("gone.png")
    source = open_rows(tmp_path, on_bad_file="skip")
    read_all(source)
    assert missing_rows(source) == [1]


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read(tmp_path):
    path = write_png(tmp_path / "a.png", pixels(8, 8))
    path.chmod(0)
    source = open_rows(tmp_path, on_bad_file="skip")
    read_all(source)
    assert missing_rows(source) == [0]


def test_a_file_that_is_repaired_is_read_again(tmp_path):
    path = tmp_path / "a.jpg"
    path.write_bytes(JPEG[:50])
    source = open_rows(tmp_path, on_bad_file="skip")
    assert not read_all(source).any()
    write_jpeg(path, pixels(8, 8))
    np.testing.assert_array_equal(read_all(source), references([path], SIZE))
    assert missing_rows(source) == []


def test_skipped_rows_of_integers(good, bad, expected):
    declared = takes(*SIZE, 3, dtype=tf.uint8)
    images = Images(with_bad(good, bad, {1}), on_bad_file="skip")
    rows = read_all(images.open_rows(declared))
    np.testing.assert_array_equal(rows, np.round(zeroed(expected, [1])))


@pytest.mark.parametrize("preprocess", ["unit", "imagenet"])
def test_skipped_rows_are_zeros_after_scaling(good, bad, preprocess):
    paths = with_bad(good, bad, {1})
    source = open_rows(paths, preprocess=preprocess, on_bad_file="skip")
    rows = read_all(source)
    assert not rows[1].any() and rows[2].any()
