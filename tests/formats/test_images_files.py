"""Finding image files: order, what counts as one, links, what is refused."""

import os
import pathlib
import tempfile

import keras
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from keras_mgpu_strategy.formats.images.listing import SUFFIXES, find_images


def touch(folder, *names):
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


def names(folder, must_read=True):
    return list(find_images(folder, must_read).names)


def keras_names(folder, labels="inferred"):
    """The files of a folder in the order of Keras."""
    data = keras.utils.image_dataset_from_directory(
        folder, labels, shuffle=False, image_size=(2, 2), batch_size=64, verbose=False
    )
    return [os.path.relpath(path, folder) for path in data.file_paths]


def test_files_come_folder_by_folder(tmp_path):
    touch(tmp_path, "b.png", "a/z.jpg", "a-b.png", "a.gif", "B.bmp", "a/10.png")
    touch(tmp_path, "a/9.png", "ä.png", "a/b/c/d.jpeg", "a-b/1.png", "a/b-c/2.png")
    first = ["B.bmp", "a-b.png", "a.gif", "b.png", "ä.png"]
    second = ["a/10.png", "a/9.png", "a/z.jpg", "a/b-c/2.png", "a/b/c/d.jpeg"]
    assert names(tmp_path) == [*first, *second, "a-b/1.png"]


def test_classes_come_in_the_order_of_keras(tmp_path):
    touch(tmp_path, "cat-2/a.png", "cat/1.png", "cat/10.png", "cat/2.png", "Dog/b.png")
    touch(tmp_path, "cat (wild)/1.png", "dog/B.png", "dog/a.png", "cat/x/1.png")
    expected = ["Dog/b.png", "cat/1.png", "cat/10.png", "cat/2.png", "cat/x/1.png"]
    expected += ["cat (wild)/1.png", "cat-2/a.png", "dog/B.png", "dog/a.png"]
    assert names(tmp_path) == keras_names(tmp_path) == expected


_part = st.text(" -.()+,09AZ_ab~é", min_size=1, max_size=3).filter(
    lambda part: part[0] != "."
)


@given(st.lists(st.lists(_part, min_size=1, max_size=3), min_size=1, max_size=9))
@settings(max_examples=40, deadline=None)
def test_any_classes_come_in_the_order_of_keras(paths):
    with tempfile.TemporaryDirectory() as folder:
        root = pathlib.Path(folder)
        for number, parts in enumerate(paths):
            touch(root, f"{'/'.join(parts)}/{parts[0]}{number}.png")
        assert names(root) == keras_names(root)


def test_files_next_to_classes_come_as_in_keras_without_labels(tmp_path):
    touch(tmp_path, "z.png", "a/1.png", "a-b/2.png", "A.png", "a.jpg")
    assert names(tmp_path) == keras_names(tmp_path, labels=None)


def test_paths_lead_to_the_files(tmp_path, monkeypatch):
    touch(tmp_path, "a/b.png")
    monkeypatch.chdir(tmp_path)
    for folder in (tmp_path, str(tmp_path), f"{tmp_path}/", ".", "a", pathlib.Path()):
        found = find_images(folder, must_read=True)
        assert os.path.samefile(found.path(0), tmp_path / "a/b.png")
        assert os.path.samefile(found.encoded_paths(0, 1)[0], tmp_path / "a/b.png")


def test_hidden_files_and_other_files_are_left_out(tmp_path):
    touch(tmp_path, "a.PNG", "b.JpG", ".c.png", "._d.png", ".git/e.png", "f.txt")
    touch(tmp_path, "png", "g.png.txt", "h", "Thumbs.db", "i.npy")
    assert names(tmp_path) == ["a.PNG", "b.JpG"]


def test_a_folder_named_like_an_image_is_a_folder(tmp_path):
    touch(tmp_path, "x.png/y.png")
    assert names(tmp_path) == ["x.png/y.png"]


def test_links(tmp_path):
    touch(tmp_path, "real/a.png")
    (tmp_path / "real/loop").symlink_to(tmp_path)
    (tmp_path / "real/self.png").symlink_to("self.png")
    (tmp_path / "real/gone.png").symlink_to("nowhere.png")
    (tmp_path / "again").symlink_to("real")
    (tmp_path / "b.png").symlink_to("real/a.png")
    inner = ["a.png", "gone.png", "self.png"]
    expected = [f"{folder}/{name}" for folder in ("again", "real") for name in inner]
    assert names(tmp_path) == ["b.png", *expected]


def test_links_that_lead_to_each_other(tmp_path):
    touch(tmp_path, "a/1.png", "b/2.png")
    (tmp_path / "a/to_b").symlink_to(tmp_path / "b")
    (tmp_path / "b/to_a").symlink_to(tmp_path / "a")
    expected = ["a/1.png", "a/to_b/2.png", "b/2.png", "b/to_a/1.png"]
    assert names(tmp_path) == expected


def test_pipes_are_not_files(tmp_path):
    touch(tmp_path, "a.png")
    os.mkfifo(tmp_path / "b.png")
    assert names(tmp_path) == ["a.png"]
    message = r"b.png' \(row 1\), which is neither a file nor a folder"
    for must_read in (True, False):
        with pytest.raises(ValueError, match=message):
            names([tmp_path / "a.png", tmp_path / "b.png"], must_read)


def test_names_that_are_not_unicode(tmp_path):
    path = os.fsencode(tmp_path) + b"/a\xff.png"
    with open(path, "wb"):
        found = find_images(tmp_path, must_read=True)
    assert found.encoded_paths(0, 1) == [path]
    assert found.shown_names(0, 1) == ["a\\xff.png"]


def test_a_folder_without_images(tmp_path):
    touch(tmp_path, "a.txt", ".b.png")
    message = "which holds no image: expected files that end in .apng, .bmp, .gif"
    with pytest.raises(ValueError, match=message):
        find_images(tmp_path, must_read=True)


def test_an_empty_list():
    with pytest.raises(ValueError, match="empty list of image files, expected at lea"):
        find_images([], must_read=True)


def test_suffixes_that_are_read(tmp_path):
    files = [f"{c}{s}" for s in SUFFIXES for c, s in (("a", s), ("b", s.upper()))]
    touch(tmp_path, *files)
    assert sorted(names(tmp_path)) == sorted(files)


OF_IMAGES = """
apng avif cr2 cr3 cur dcm dds dib dng emf eps exr fits heic heif heics hif icns ico ief
j2k jp2 jpx jpf jxl jxr nef pam pbm pcx pgm pnm ppm psd qoi ras raf rgb svg svgz tga tif
tiff webp wmf xbm xcf xpm xwd
"""


def test_no_image_is_left_out(tmp_path):
    others = [f"b.{s}" for s in OF_IMAGES.split() if f".{s}" not in SUFFIXES]
    touch(tmp_path, "a.png", "c.HEIC", *others)
    assert names(tmp_path, must_read=False) == ["a.png", *sorted(others), "c.HEIC"]
    message = f"holds {len(others) + 1} images of a kind.*such as 'b.avif'. Convert th"
    with pytest.raises(ValueError, match=message):
        find_images(tmp_path, must_read=True)
    assert names([tmp_path / "b.tif"]) == [str(tmp_path / "b.tif")]


def test_a_missing_file_in_a_list(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    message = "Row 0 of the image files cannot be read: No such file.*: 'gone.png'"
    with pytest.raises(FileNotFoundError, match=message):
        find_images(["gone.png"], must_read=True)
    assert names(["gone.png"], must_read=False) == ["gone.png"]


def test_a_missing_path_is_not_a_row(tmp_path):
    with pytest.raises(FileNotFoundError, match="No such folder or image file"):
        find_images(tmp_path / "photos", must_read=False)


def test_a_folder_in_a_list(tmp_path):
    message = "Row 0 of the image files cannot be read: Is a folder, not a file"
    with pytest.raises(IsADirectoryError, match=message):
        find_images([tmp_path], must_read=True)
    assert names([tmp_path], must_read=False) == [str(tmp_path)]


def test_other_file_systems():
    message = "'gs://bucket/a.png' .row 0., expected a path in the file system of this"
    with pytest.raises(ValueError, match=message):
        find_images(["gs://bucket/a.png"], must_read=False)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_folder_that_cannot_be_listed(tmp_path):
    touch(tmp_path, "a/b.png")
    (tmp_path / "a").chmod(0)
    with pytest.raises(PermissionError):
        find_images(tmp_path, must_read=False)
    (tmp_path / "a").chmod(0o700)
