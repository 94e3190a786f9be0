"""Shards together hold all rows, and each is resumed by itself."""

import numpy as np
import pytest

from tests import file_runs
from tests.file_runs import BATCH
from tests.outputs import places
from tests.resuming import X, write

COUNT = 3


def shard_of(predictor, path, index, x=X, **options):
    return write(predictor, path, x, shard=(index, COUNT), **options)


def joined(path, count=COUNT):
    """The results of all shards, joined if each is a file of its own."""
    if path.suffix in (".parquet", ".zarr"):
        return file_runs.results_in(path)["output"]
    files = sorted(path.parent.glob(f"out.shard-*{path.suffix}"))
    assert len(files) == count
    if path.suffix == ".npy":
        return np.concatenate([np.load(file) for file in files])
    header, *_ = files[0].read_text().splitlines()
    lines = [file.read_text().splitlines() for file in files]
    assert {file[0] for file in lines} == {header}
    whole = path.parent.with_name("joined.csv")
    rest = [line for file in lines for line in file[1:]]
    whole.write_text("\n".join([header, *rest]))
    return file_runs.results_in(whole)["output"].astype(np.float32)


def assert_same(found, expected):
    """Compares to the last bit: rows have the same places in batches."""
    np.testing.assert_array_equal(found, expected)


def test_shards_together_hold_what_predict_returns(predictors, path):
    x = file_runs.rows(400)
    expected = predictors[2].predict(x, BATCH, verbose=0)
    # As on machines with different numbers of devices.
    for index, num_replicas in ((2, 1), (0, 2), (1, 3)):
        predictor = predictors[num_replicas]
        report = shard_of(predictor, path, index, x, batch_size=4 * num_replicas)
        assert 130 <= report.rows <= 136
    assert_same(joined(path), expected)


def test_a_shard_is_resumed(pair, path):
    shard_of(pair, path, 0)
    shard_of(pair, path, 2)
    with pytest.raises(file_runs.Broken) as info:
        shard_of(pair, path, 1, file_runs.Array(X, 33))
    assert "Rows 20 to" in getattr(info.value, "__notes__", [])[-1]
    shard_of(pair, path, 1, resume=True)
    for index in range(COUNT):
        before = places.tree(path.parent)
        assert shard_of(pair, path, index, resume=True).rows == 0
        assert places.tree(path.parent) == before
    assert_same(joined(path), pair.predict(X, BATCH, verbose=0))


def test_a_shard_that_was_run_is_run_again_on_demand(pair, out):
    for index in range(COUNT):
        shard_of(pair, out, index)
    with pytest.raises(FileExistsError, match="this shard of .* was begun"):
        shard_of(pair, out, 1)
    shard_of(pair, out, 1, overwrite=True)
    assert_same(joined(out), pair.predict(X, BATCH, verbose=0))


def test_shards_of_fewer_rows_than_shards(pair, path):
    for index in range(COUNT):
        shard_of(pair, path, index, X[:2])
    assert_same(joined(path), pair.predict(X[:2], verbose=0))


def test_shards_need_the_number_of_rows(pair, out):
    with pytest.raises(ValueError, match=r"shard=\(0, 3\) needs an input whose number"):
        shard_of(pair, out, 0, file_runs.generator(X))
    assert not list(out.parent.iterdir())
