"""Where outputs are: each state that a run or a kill can leave, and what follows."""

import os
import pathlib
import subprocess
import sys
import tempfile

import pytest

from keras_mgpu_strategy.outputs.durable import remove
from keras_mgpu_strategy.outputs.journal import Progress
from keras_mgpu_strategy.outputs.target import Target, record_of
from tests.formats import stored
from tests.outputs import places


@pytest.fixture(params=["out.npy", "out.parquet", "out[1].*.npy"])
def place(request, tmp_path):
    return Target(tmp_path / request.param, None)


def test_an_empty_place_is_fine(place):
    for flags in ({}, {"resume": True}, {"overwrite": True}):
        place.check(**({"resume": False, "overwrite": False} | flags))
    assert place.begun() is None
    assert not places.tree(place.path.parent)


@pytest.mark.parametrize(
    ("has_partial", "finished", "has_output"),
    [
        (True, False, False),  # a run was stopped
        (True, False, True),  # one that was to replace an output
        (True, True, True),  # before the new one gets its name
        (False, True, True),  # after that
        (False, True, False),  # and the output was removed
    ],
)
def test_what_was_begun_needs_a_flag(place, has_partial, finished, has_output):
    places.begin(place, finished=finished)
    if has_partial:
        places.put(place.partial, "new")
    if has_output:
        places.put(place.path, "old")
    before = places.tree(place.path.parent)
    with pytest.raises(FileExistsError, match="was begun. Pass resume=True"):
        place.check(resume=False, overwrite=False)
    place.check(resume=True, overwrite=False)
    place.check(resume=False, overwrite=True)
    found = place.begun()
    assert found is not None and found.progress is not None
    assert found.progress.finished == finished
    assert places.tree(place.path.parent) == before


@pytest.mark.parametrize("resume", [True, False])
def test_an_output_without_a_journal_is_not_replaced(place, resume):
    places.put(place.path, "old")
    with pytest.raises(FileExistsError, match="exists, and is finished or was not wri"):
        place.check(resume=resume, overwrite=False)
    place.check(resume=False, overwrite=True)
    assert place.begun() is None


@pytest.mark.parametrize("resume", [True, False])
def test_a_partial_output_without_a_journal_is_ignored(place, resume):
    places.put(place.partial, "new")
    place.check(resume=resume, overwrite=False)
    assert place.begun() is None


def add_rows(place):
    found = place.begun()
    found.add(Progress(7, 4, 4, {"rows": 7}))
    found.close()


def finish(place):
    add_rows(place)
    place.path.write_text("another run's")
    place.journal.unlink()


@pytest.mark.parametrize(
    ("is_begun", "meanwhile", "message"),
    [
        (False, places.begin, "has changed: another run has written"),
        (False, lambda place: places.put(place.path, "other's"), "exists, and is fin"),
        (True, add_rows, "has changed: .* Pass resume=True to continue with what"),
        (True, finish, "has changed: another run has written .*Nothing was touched"),
    ],
)
def test_what_another_run_wrote_meanwhile_is_left(place, is_begun, meanwhile, message):
    if is_begun:
        places.begin(place)
    found = place.begun()
    place.check_unchanged(found)
    meanwhile(place)
    before = places.tree(place.path.parent)
    with pytest.raises(FileExistsError, match=message):
        place.check_unchanged(found)
    assert places.tree(place.path.parent) == before


def test_clearing_keeps_the_output(place):
    places.begin(place)
    places.put(place.partial, "new")
    places.put(place.path, "old")
    before = {
        k: v for k, v in places.tree(place.path.parent).items() if "partial" not in k
    }
    place.clear()
    place.clear()
    del before[place.journal.name]
    assert places.tree(place.path.parent) == before


def finish_next_to(place, old):
    """Makes a finished output that will replace an old one; returns its bytes."""
    places.begin(place, finished=True)
    places.put(place.partial, "new")
    if old == "file":
        place.path.write_text("old")
    elif old == "folder":
        place.path.mkdir()
        (place.path / "old").write_text("old")
    return stored.content(place.partial)


@pytest.mark.parametrize("old", [None, "file", "folder"])
def test_placing_resumes_wherever_it_was_stopped(place, old, monkeypatch):
    for count in range(30):
        place.clear()
        remove(place.path)
        expected = finish_next_to(place, old)
        with monkeypatch.context() as patch:
            places.stopping(patch, count)
            was_stopped = is_stopped(place, expected)
        if place.journal.exists():
            place.check(resume=True, overwrite=False)
            place.place()
        assert stored.content(place.path) == expected
        assert set(place.path.parent.iterdir()) == {place.path, record_of(place.path)}
        if not was_stopped:
            break
    assert 4 < count < 29, "placing was not stopped at each change of the disk"


def is_stopped(place, expected):
    """Whether placing is stopped; if so, neither the old nor the new one is lost."""
    try:
        place.place()
    except places.Stopped:
        left = [path for path in (place.partial, place.path) if path.exists()]
        assert expected in [stored.content(path) for path in left]
        return True
    return False


def test_files_of_the_user_with_similar_names_stay(place):
    places.begin(place, finished=True)
    places.put(place.partial, "new")
    places.put(place.path, "old")
    for suffix in (".old", ".new", ".bak", ".journal.txt"):
        place.path.with_name(f"{place.path.name}{suffix}").write_text("mine")
    place.place()
    own = {place.path, record_of(place.path)}
    kept = set(place.path.parent.iterdir()) - own
    assert [path.read_text() for path in kept] == ["mine"] * 4


def test_a_finished_output_that_is_gone_is_an_error(place):
    places.begin(place, finished=True)
    with pytest.raises(FileNotFoundError, match="was finished, but it is gone"):
        place.place()
    assert place.journal.exists()


@pytest.mark.parametrize("is_file", [True, False])
def test_a_missing_folder_or_a_file_in_its_place_is_found(is_file, tmp_path):
    if is_file:
        (tmp_path / "no").write_text("")
    place = Target(tmp_path / "no" / "out.npy", None)
    with pytest.raises(FileNotFoundError, match=r"no folder .*no to write out\.npy to"):
        place.check(resume=is_file, overwrite=False)


AS_ANOTHER_USER = """
import os, pathlib, sys
from keras_mgpu_strategy.outputs.durable import check_folder
folder = pathlib.Path(sys.argv[1])
check_folder(folder / "out.npy")
folder.chmod(int(sys.argv[2], 8))
if os.geteuid() == 0:
    os.setgroups([])
    os.setgid(65534)
    os.setuid(65534)
check_folder(folder / "out.npy")
"""


@pytest.mark.parametrize("mode", [0o555, 0o666])
def test_a_folder_that_cannot_be_written_is_found(mode):
    """Root may write anywhere, so a process that drops root checks."""
    # Other users cannot enter pytest's own folders.
    with tempfile.TemporaryDirectory() as outer:
        os.chmod(outer, 0o755)
        folder = pathlib.Path(outer, "folder")
        folder.mkdir()
        command = [sys.executable, "-c", AS_ANOTHER_USER, folder, oct(mode)]
        done = subprocess.run(command, capture_output=True, text=True)
        folder.chmod(0o755)
    assert f"PermissionError: The folder {folder} cannot be written" in done.stderr
