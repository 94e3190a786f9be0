"""A lock on a journal: one writer at a time, and none that outlives its process."""

import subprocess
import sys

import pytest

from keras_mgpu_strategy.sinks.lock import Lock

HOLD = """
import pathlib, sys
from keras_mgpu_strategy.sinks.lock import Lock
lock = Lock(pathlib.Path(sys.argv[1]))
lock.take()
print("held", flush=True)
sys.stdin.read()
"""


@pytest.fixture
def journal(tmp_path):
    path = tmp_path / "scores.npy.journal"
    path.touch()
    return path


def test_a_second_lock_is_refused_until_the_first_is_let_go(journal):
    first, second = Lock(journal), Lock(journal)
    first.take()
    with pytest.raises(BlockingIOError, match="journal is in use: another run"):
        second.take()
    first.release()
    second.take()
    second.release()


def test_a_lock_ends_with_its_process(journal):
    child = subprocess.Popen(
        [sys.executable, "-c", HOLD, str(journal)],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )
    with child:
        assert child.stdout.readline() == "held\n"
        with pytest.raises(BlockingIOError, match="another run is writing"):
            Lock(journal).take()
        child.kill()
    lock = Lock(journal)
    lock.take()
    lock.release()


def test_what_is_not_there_is_not_locked(tmp_path):
    path = tmp_path / "absent.journal"
    Lock(path).take()
    assert not path.exists()
