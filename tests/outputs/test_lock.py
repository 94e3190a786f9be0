"""A lock on a journal: one writer at a time, and none that outlives its process."""

import subprocess
import sys

import pytest

from keras_mgpu_strategy.outputs.lock import Lock
from tests.racing import race

HOLD = """
import pathlib, sys
from keras_mgpu_strategy.outputs.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
getattr(lock, sys.argv[2])()
print("held", flush=True)
sys.stdin.read()
"""
BEGIN = """
import pathlib, sys
from keras_mgpu_strategy.outputs.lock import Lock
locks = []
def act(path):
    locks.append(Lock(pathlib.Path(path)))  # and held to the end
    try:
        locks[-1].claim()
    except BlockingIOError:
        return "refused"
    locks[-1].put(sys.argv[1].encode())
    return "began"
"""


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "scores.npy.journal"
    path.write_text("old")
    return path


def test_a_second_lock_is_refused_until_the_first_is_released(journal):
    first, second = Lock(journal), Lock(journal)
    first.__enter__()
    for attempt in (second.__enter__, second.claim):
        with pytest.raises(BlockingIOError, match="journal is in use: another run"):
            attempt()
    first.release()
    with second, pytest.raises(BlockingIOError, match="another run is writing"):
        first.__enter__()
    assert list(journal.parent.iterdir()) == [journal]


@pytest.mark.parametrize("how", ["__enter__", "claim"])
def test_a_lock_ends_with_its_process(journal, how):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(journal), how],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="another run is writing"):
            Lock(journal).claim()
        child.kill()
    lock = Lock(journal)
    lock.claim()
    lock.keep()
    lock.release()
    assert list(journal.parent.iterdir()) == [journal]


def test_a_missing_journal_is_not_locked(tmp_path):
    path = tmp_path / "absent.journal"
    Lock(path).__enter__()
    assert not path.exists()


@pytest.mark.parametrize("has_old", [True, False])
def test_a_new_file_is_locked_as_soon_as_it_exists(journal, has_old):
    if not has_old:
        journal.unlink()
    first, second = Lock(journal), Lock(journal)
    first.claim()
    with pytest.raises(BlockingIOError, match="another run is writing"):
        second.claim()
    first.put(b"new")
    for attempt in (second.__enter__, second.claim):
        with pytest.raises(BlockingIOError, match="another run is writing"):
            attempt()
    assert journal.read_bytes() == b"new"
    first.release()
    with second:
        assert list(journal.parent.iterdir()) == [journal]


def test_what_is_in_the_place_of_the_new_file_is_not_written_to(journal):
    victim = journal.with_name("victim")
    scratch = journal.with_name(f".{journal.name}.partial")
    for leave in (scratch.hardlink_to, scratch.symlink_to):
        victim.write_text("precious")
        leave(victim)
        lock = Lock(journal)
        lock.claim()
        lock.put(b"new")
        lock.release()
        assert journal.read_bytes() == b"new"
        assert victim.read_text() == "precious"
        assert sorted(journal.parent.iterdir()) == [journal, victim]


def test_of_two_that_begin_at_the_same_instant_one_is_refused(tmp_path):
    paths = [tmp_path / f"{number}.journal" for number in range(100)]
    for path in paths[::2]:
        path.write_text("old")
    for path, said in race(BEGIN, paths).items():
        assert sorted(said) == ["began", "refused"]
        assert path.read_text() == ("first", "second")[said.index("began")]
    assert sorted(tmp_path.iterdir()) == sorted(paths)
