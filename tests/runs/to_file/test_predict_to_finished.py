"""`resume=True` returns at once if the output is complete and of the same run."""

import os

import numpy as np
import pytest

from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.outputs.target import record_of
from tests import file_runs
from tests.formats import stored
from tests.outputs import places
from tests.resuming import X, write


def again(predictor, path, x=X, **options):
    """Resumes, checks that nothing was touched, and returns how many rows ran."""
    before = places.tree(path.parent)
    report = write(predictor, path, x, resume=True, **options)
    assert places.tree(path.parent) == before
    return report.rows


def test_a_finished_output_of_the_same_run_is_left_as_it_is(predictors, path):
    write(predictors[2], path, X)
    assert again(predictors[2], path) == 0
    assert predictors[2].report.rows == 0
    assert again(predictors[1], path, batch_size=file_runs.BATCH // 2) == 0


def test_one_that_was_resumed_or_replaced_is_finished_too(pair, out):
    write(pair, out, X + 1)
    with pytest.raises(file_runs.Broken):
        write(pair, out, file_runs.generator(X, 33), overwrite=True)
    write(pair, out, file_runs.generator(X), resume=True)
    assert again(pair, out, file_runs.generator(X)) == 0


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "predict"}, "method: 'predict_proba' before, 'predict' now"),
        ({"batch_size": 2}, "per-replica batch: 4 before, 1 now"),
        ({"steps": 3}, "steps: None before, 3 now"),
    ],
)
def test_a_finished_output_of_another_run_is_an_error(pair, out, options, message):
    write(pair, out, X)
    before = places.tree(out.parent)
    expected = f"is finished, but another run wrote it .*{message}.*overwrite=True"
    with pytest.raises(ValueError, match=expected):
        write(pair, out, X, resume=True, **options)
    assert places.tree(out.parent) == before


def any_file(path):
    files = [path] if path.is_file() else sorted(path.rglob("*"))
    return next(file for file in files if file.is_file())


def edit(path):
    with open(any_file(path), "ab") as file:
        file.write(b"x")


def touch(path):
    os.utime(any_file(path), (1, 1))


def forget(path):
    record_of(path).unlink()


def garble(path):
    record_of(path).write_bytes(record_of(path).read_bytes()[:-9] + b"garbled!\n")


def test_an_output_that_was_changed_does_not_count_as_finished(pair, path):
    for change in (edit, touch, forget, garble):
        write(pair, path, X, overwrite=True)
        change(path)
        with pytest.raises(FileExistsError, match="was not written by this package"):
            write(pair, path, X, resume=True)


def test_a_record_without_its_output_begins_again(pair, out):
    write(pair, out, X)
    os.remove(out)
    assert write(pair, out, X, resume=True).rows == len(X)


def test_outputs_that_were_moved_with_their_records(pair, out):
    write(pair, out, X)
    moved = out.parent.with_name("moved")
    out.parent.rename(moved)
    assert again(pair, moved / out.name) == 0


def test_merged_outputs_are_finished_for_shards_and_for_the_whole(pair, path):
    for index in range(3):
        write(pair, path, X, shard=(index, 3))
        assert again(pair, path, shard=(index, 3)) == 0
    merge(path)
    assert again(pair, path) == 0
    for index in range(3):
        assert again(pair, path, shard=(index, 3)) == 0
    with pytest.raises(ValueError, match="is finished, but another run wrote it"):
        write(pair, path, X + 1, resume=True)
    expected = pair.predict(X, file_runs.BATCH, verbose=0)
    found = file_runs.results_in(path)["output"]
    np.testing.assert_array_equal(found.astype(np.float32), expected)


def test_shards_on_machines_with_copies_of_their_own_are_merged(
    pair, out, tmp_path, monkeypatch
):
    monkeypatch.setattr("keras_mgpu_strategy.digests.samples.MOST_BYTES", 16)
    for index in range(2):
        copy = tmp_path / f"machine {index}" / "x.npy"
        copy.parent.mkdir()
        np.save(copy, X)
        os.utime(copy, (1, 1 + index))
        write(pair, out, copy, shard=(index, 2))
    merge(out)
    assert stored.content(out)
