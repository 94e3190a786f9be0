"""`merge`: what it joins, and what it refuses."""

import os

import numpy as np
import pytest

from keras_mgpu_strategy.merge import Merged, merge
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import Target, record_of
from tests.merging.sharded_outputs import (
    NUM_ROWS,
    NUM_SHARDS,
    ONE,
    SUFFIXES,
    TEXTS,
    TWO,
    assert_refused,
    place_in,
    tree,
    write,
    write_shard,
    write_shards,
)

NAMES = [f"file {row}\n" for row in range(NUM_ROWS)]


@pytest.mark.parametrize(
    ("outputs", "names"),
    [(ONE, None), (TWO, NAMES), (TEXTS, NAMES), (TEXTS["label"], None)],
    ids=["one", "two", "texts", "text"],
)
@pytest.mark.parametrize("suffix", SUFFIXES)
def test_shards_become_the_whole(suffix, outputs, names, tmp_path):
    whole = place_in(tmp_path / "whole", suffix)
    parts = place_in(tmp_path / "parts", suffix)
    write(whole, outputs, range(NUM_ROWS), names=names)
    write_shards(parts, outputs, names=names)
    assert merge(parts) == Merged(NUM_SHARDS, NUM_ROWS)
    record_of(parts).unlink()
    assert os.listdir(parts.parent) == [parts.name]
    if suffix in (".npy", ".csv"):
        assert tree(parts.parent) == tree(whole.parent)


@pytest.mark.parametrize("suffix", SUFFIXES)
def test_missing_shards_are_listed(suffix, tmp_path):
    path = tmp_path / f"scores{suffix}"
    write_shard(path, ONE, 1)
    unfinished = Target(path, Shard(2, NUM_SHARDS)).journal
    journals.create(unfinished, {"run": {}, "layout": []})
    assert_refused(
        path,
        FileNotFoundError,
        "lacks shards of 3: 0 is not there, and "
        r"2 is not finished.*Run and so on.*--shard=0/3 --resume",
    )


def test_what_is_not_sharded(tmp_path):
    with pytest.raises(FileNotFoundError, match="no journals of shards.*was not run"):
        merge(tmp_path / "scores.npy")
    np.save(tmp_path / "scores.npy", ONE)
    with pytest.raises(FileNotFoundError, match="It is complete, or was not run with"):
        merge(tmp_path / "scores.npy")
    with pytest.raises(FileNotFoundError, match="There is no folder"):
        merge(tmp_path / "no" / "scores.npy")
    with pytest.raises(ValueError, match="ends in one of .npy, .parquet, .zarr, .csv"):
        merge(tmp_path / "scores.txt")


def test_other_runs_are_refused(tmp_path):
    path = tmp_path / "scores.npy"
    write_shards(path, ONE)
    write_shard(path, ONE, 1, model="n")
    with pytest.raises(ValueError, match="model: 'm' in shard 0, 'n' in shard 1"):
        merge(path)
    write_shard(path, ONE.astype(np.float64), 1)
    with pytest.raises(ValueError, match="outputs: .* in shard 0, .* in shard 1"):
        merge(path)
    write_shard(path, ONE, 1)
    write_shard(path, ONE, 0, count=2)
    with pytest.raises(ValueError, match=r"runs with \[2, 3\] shards"):
        merge(path)


def test_an_output_that_is_there_is_kept(tmp_path):
    path = tmp_path / "scores.csv"
    write_shards(path, ONE)
    path.write_text("precious")
    assert_refused(path, FileExistsError, "exists, next to shards")
