"""`merge`: neither a kill nor another merge at the same time does harm."""

import os
import sys

import numpy as np
import pytest

from keras_mgpu_strategy.merge import Merged, merge
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import read_record, record_of
from tests.merging.sharded_outputs import (
    NUM_ROWS,
    NUM_SHARDS,
    ONE,
    SUFFIXES,
    TWO,
    place_in,
    tree,
    write,
    write_shards,
)
from tests.racing import race

MERGE = """
from keras_mgpu_strategy.merge import merge
def act(path):
    try:
        return str(merge(path).num_rows)
    except BlockingIOError:
        return "refused"
    except FileNotFoundError as error:
        return "late" if "It is complete" in str(error) else repr(error)
"""


def test_of_two_merges_at_the_same_instant_one_is_refused(tmp_path):
    paths = [tmp_path / f"{number}.npy" for number in range(20)]
    for path in paths:
        write_shards(path, ONE)
    for path, said in race(MERGE, paths).items():
        assert sorted(said) in ([f"{NUM_ROWS}", "late"], [f"{NUM_ROWS}", "refused"])
        np.testing.assert_array_equal(np.load(path), ONE)
    assert set(tmp_path.iterdir()) == {*paths, *map(record_of, paths)}


class Killed(BaseException):
    pass


@pytest.fixture(scope="module")
def steps_left():
    """How many files may still be made, renamed or removed; None for any number."""
    left = [None]

    def look(event, arguments):
        if left[0] is None or event not in STEPS:
            return
        if left[0] == 0:
            raise Killed
        left[0] -= 1

    sys.addaudithook(look)  # cannot be removed, but None turns it off
    yield left
    left[0] = None


STEPS = ("os.remove", "os.rename", "os.mkdir", "os.rmdir")


def dies_after(num_steps, path, steps_left):
    """Whether a merge gets as far as so many steps, and dies there."""
    steps_left[0] = num_steps
    try:
        merge(path)
    except Killed:
        return True
    finally:
        steps_left[0] = None
    return False


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_a_merge_that_was_killed_completes(suffix, tmp_path, steps_left):
    """It dies at each of its steps in turn, one step later every time."""
    whole = place_in(tmp_path / "whole", suffix)
    write(whole, TWO, range(NUM_ROWS))
    for steps in range(100):
        path = place_in(tmp_path / f"after {steps}", suffix)
        write_shards(path, TWO)
        has_died = dies_after(steps, path, steps_left)
        if has_died:
            assert merge(path) == Merged(NUM_SHARDS, NUM_ROWS)
        assert read_record(path) is not None
        record_of(path).unlink()
        assert os.listdir(path.parent) == [path.name]
        if suffix in (".npy", ".csv"):
            assert tree(path.parent) == tree(whole.parent)
        if not has_died:
            break
    assert 4 < steps < 99


def test_a_note_of_an_earlier_merge_removes_no_later_shards(tmp_path, steps_left):
    path = tmp_path / "scores.npy"
    write_shards(path, ONE)
    # By then both the note and the output have their names, and no shard is gone.
    assert dies_after(3, path, steps_left)
    assert path.exists() and Shard(0, NUM_SHARDS).file_of(path).exists()
    write_shards(path, ONE + 1, model="later")
    with pytest.raises(FileExistsError, match="exists, next to shards"):
        merge(path)
    path.unlink()
    merge(path)
    np.testing.assert_array_equal(np.load(path), ONE + 1)
