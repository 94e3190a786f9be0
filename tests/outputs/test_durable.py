"""Files that are written whole, and files that grow."""

import numpy as np
import pytest

from keras_mgpu_strategy.outputs.durable import Appender, remove, replacing, write_whole


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path):
    path = tmp_path / "file"
    write_whole(path, b"old")
    with pytest.raises(KeyboardInterrupt), replacing(path) as file:
        file.write(b"half of the n")
        raise KeyboardInterrupt
    assert path.read_bytes() == b"old"
    with replacing(path) as file:
        file.write(b"new")
        assert path.read_bytes() == b"old"
    assert path.read_bytes() == b"new"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_tags_keep_writers_of_one_file_apart(tmp_path):
    path = tmp_path / "file"
    with replacing(path, ".0") as first, replacing(path, ".1") as second:
        first.write(b"same")
        second.write(b"same")
    assert path.read_bytes() == b"same"
    assert [entry.name for entry in tmp_path.iterdir()] == ["file"]


def test_an_appender_continues_after_what_is_kept(tmp_path):
    path = tmp_path / "file"
    file = Appender(path)
    end = file.put(b"abc", 0)
    file.put(np.array([[1, 2], [3, 4]], np.uint8).T, end)
    file.close()
    file.close()
    assert path.read_bytes() == b"abc\x01\x03\x02\x04"
    file = Appender(path, kept=4)
    file.put(np.zeros((0, 3)), 4)
    file.put(b"z", 4)
    file.sync()
    file.close()
    assert path.read_bytes() == b"abc\x01z"


@pytest.mark.parametrize(
    ("kept", "message"), [(4, "has 3 bytes, expected at least 4"), (1, "is missing")]
)
def test_an_appender_needs_what_is_kept(kept, message, tmp_path):
    path = tmp_path / "file"
    if kept > 3:
        path.write_bytes(b"abc")
    with pytest.raises(ValueError, match=message):
        Appender(path, kept)


def test_a_link_is_removed_and_not_what_it_points_to(tmp_path):
    (tmp_path / "folder").mkdir()
    (tmp_path / "folder/file").write_bytes(b"")
    (tmp_path / "link").symlink_to(tmp_path / "folder")
    remove(tmp_path / "link")
    remove(tmp_path / "none")
    assert (tmp_path / "folder/file").exists()
    remove(tmp_path / "folder")
    assert not list(tmp_path.iterdir())
