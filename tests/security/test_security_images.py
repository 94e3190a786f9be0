"""No image ends the process that reads it, or takes more memory than promised.

A child killed by a signal has a negative exit code.
"""

import sys

import pytest
from hostile_images import (
    animated_webp,
    gif_of_frames,
    good_images,
    huge_images,
    jpeg_of_scans,
    mutants,
    png,
    sparse_images,
)

from keras_mgpu_strategy import files
from tests import children
from tests.security import hostile_images

GOOD, HUGE, SPARSE = good_images(), huge_images(), sparse_images()
MUTANTS_OF_EACH = 30
COLOR_MODES = pytest.mark.parametrize("color_mode", ["rgb", "rgba", "grayscale"])


def write_all(folder, contents):
    paths = [folder / f"{number:05}.image" for number in range(len(contents))]
    for path, content in zip(paths, contents, strict=True):
        path.write_bytes(content)
    return [str(path) for path in paths]


def read_in_child(*arguments):
    child = children.start(hostile_images.read_twice, *arguments)
    assert children.end_of(child, timeout=300) == 0


def test_good_images_are_good(tmp_path):
    """Otherwise their mutants would show little."""
    names = [name for name in GOOD if "12 bits" not in name and "coded" not in name]
    paths = write_all(tmp_path, [GOOD[name] for name in names])
    rows = files.Images(paths, (4, 4)).open_rows(None)
    assert sum(batch.num_rows for batch in rows.batches(8)) == len(names)


@COLOR_MODES
def test_no_image_ends_the_process(color_mode, tmp_path):
    bad = [
        mutant
        for name, contents in GOOD.items()
        for mutant in mutants(contents, MUTANTS_OF_EACH, f"{color_mode} {name}")
    ]
    read_in_child(write_all(tmp_path, [*GOOD.values(), *bad]), color_mode)


@COLOR_MODES
def test_animated_webp_files_do_not_end_the_process(color_mode, tmp_path):
    sizes = [(1, 1), (8, 8), (64, 64), (256, 256), (100, 300)]
    pictures = [animated_webp(*size, lossless=True) for size in sizes]
    read_in_child(write_all(tmp_path, pictures * 4), color_mode, [])


def test_animated_webp_files_without_pillow(tmp_path, monkeypatch):
    monkeypatch.setitem(sys.modules, "PIL.Image", None)
    paths = write_all(tmp_path, [animated_webp(8, 8)])
    rows = files.Images(paths, (4, 4)).open_rows(None)
    with pytest.raises(ValueError, match="An animated WebP file needs the package PIL"):
        list(rows.batches(1))


@pytest.mark.parametrize("kind", HUGE)
def test_pictures_that_claim_to_be_huge(kind, tmp_path):
    rows = files.Images(write_all(tmp_path, [HUGE[kind]]), (4, 4)).open_rows(None)
    # The second message is Pillow's.
    message = (
        "cannot be decoded: (it claims .* x .* pixels|.* exceeds limit of 17895697)"
    )
    with pytest.raises(ValueError, match=message):
        list(rows.batches(1))


def test_pictures_that_claim_nothing(tmp_path):
    rows = files.Images(write_all(tmp_path, [png(0, 5)]), (4, 4)).open_rows(None)
    with pytest.raises(ValueError, match="it claims 0 x 5 pixels"):
        list(rows.batches(1))


@COLOR_MODES
def test_pictures_that_claim_to_be_huge_take_no_memory(color_mode, tmp_path):
    paths = write_all(tmp_path, list(HUGE.values()))
    read_in_child(paths, color_mode, list(range(len(HUGE))), 500)


@pytest.mark.parametrize("kind", SPARSE)
def test_pictures_that_claim_much_more_than_they_hold(kind, tmp_path):
    """Each would take gigabytes, counting all the copies made of it."""
    rows = files.Images(write_all(tmp_path, [SPARSE[kind]]), (4, 4)).open_rows(None)
    with pytest.raises(ValueError, match="it claims 8000 x 9000 pixels of 4 channels"):
        list(rows.batches(1))


def test_frames_after_the_first_take_no_memory(tmp_path):
    """Unpacked, they would take two gigabytes."""
    contents = gif_of_frames(2000, 500)
    assert len(contents) < 10**7
    read_in_child(write_all(tmp_path, [contents]), "rgb", [], 500)


@COLOR_MODES
def test_pictures_of_very_many_scans(color_mode, tmp_path):
    """Each scan takes a few bytes and covers all pixels."""
    paths = write_all(tmp_path, [jpeg_of_scans(count) for count in (100, 101, 10**5)])
    rows = files.Images(paths, (4, 4), color_mode=color_mode).open_rows(None)
    batches = rows.batches(3)
    assert next(batches).num_rows == 1
    with pytest.raises(ValueError, match="Row 1: .*it has 101 scans, expected at most"):
        next(batches)
    with pytest.raises(ValueError, match="Row 2: .*it has 100000 scans"):
        next(rows.batches(1, start=2))
