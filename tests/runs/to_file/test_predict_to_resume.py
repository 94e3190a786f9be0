"""Runs that failed and were resumed write the same bytes as if they had not failed."""

import numpy as np
import pandas as pd
import pytest
import zarr

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.outputs import journal as journals
from keras_mgpu_strategy.outputs.target import Target
from tests import file_runs
from tests.file_runs import BATCH
from tests.outputs import places
from tests.resuming import NUM_ROWS, X, assert_same_files, fail, uninterrupted, write


# An input fails at a row, and then again at another.
@pytest.mark.parametrize(
    ("kind", "num_replicas"), [("array", 1), ("generator", 2), ("dataset", 3)]
)
def test_a_run_that_failed_twice_ends_as_if_it_never_had(
    predictors, num_replicas, path, kind
):
    predictor = predictors[num_replicas]
    error, first = fail(predictor, path, kind, 23)
    *_, read, saved = getattr(error, "__notes__", [])
    assert read.startswith(f"Raised while rows {first} to")
    assert saved == (
        f"Rows 0 to {first} are safe in {file_runs.partial_of(path)}. To resume "
        "from there, run the same with resume=True (--resume)."
    )
    _, second = fail(predictor, path, kind, 48, resume=True)
    assert 0 < first <= 23 < second <= 48
    write(predictor, path, file_runs.FAILING[kind](X), resume=True)
    expected = uninterrupted(predictor, path, X)
    assert_same_files(path, expected)
    file_runs.assert_nothing_beside(path)


def test_a_run_may_fail_at_any_row(pair, path):
    expected = uninterrupted(pair, path, X)
    for fails_at in (5, 8, 17, 60):
        _, safe = fail(pair, path, "generator", fails_at, overwrite=True)
        # All batches from the generator are on disk.
        assert safe == fails_at // file_runs.USER_BATCH * file_runs.USER_BATCH
        write(pair, path, file_runs.generator(X), resume=True)
        assert_same_files(path, expected)


def test_several_outputs_are_resumed(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_headed())
    fail(predictor, path, "generator", 17)
    write(predictor, path, file_runs.generator(X), resume=True)
    assert_same_files(path, uninterrupted(predictor, path, X))


def test_strings_are_resumed(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.labelling())
    raw = {"method": "predict"}
    whole = uninterrupted(predictor, path, X, **raw)
    for fails_at in (5, 17, 60):
        fail(predictor, path, "generator", fails_at, overwrite=True, **raw)
        write(predictor, path, file_runs.generator(X), resume=True, **raw)
        assert_same_files(path, whole)
    expected = [text.decode() for text in predictor.predict(X, verbose=0)]
    assert len(set(expected)) == 3
    assert texts_in(path) == expected


def texts_in(path):
    """What other tools read."""
    if path.suffix == ".npy":
        return [text.decode() for text in np.load(path)]
    if path.suffix == ".zarr":
        return [str(text) for text in zarr.open_group(path, mode="r")["output"][:]]
    read = pd.read_csv if path.suffix == ".csv" else pd.read_parquet
    return read(path)["output"].tolist()


def test_rows_of_changing_shape_are_resumed(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.averaging())

    def make(fails_at=None):
        # Lengths change at rows that are not a multiple of the batch.
        for batch in range(30):
            if batch == fails_at:
                raise file_runs.Broken
            yield file_runs.sequences(5, 3 + batch // 5, seed=batch)

    expected = uninterrupted(predictor, path, make())
    for fails_at in (9, 12, 23):
        with pytest.raises(file_runs.Broken):
            write(predictor, path, make(fails_at), overwrite=True)
        assert file_runs.safe_rows(path) == 5 * fails_at
        write(predictor, path, make(), resume=True)
        assert_same_files(path, expected)


@pytest.mark.parametrize("kind", ["generator", "dataset"])
def test_an_error_in_the_first_batch_leaves_nothing(pair, out, kind):
    with pytest.raises(file_runs.ERRORS[kind]) as info:
        write(pair, out, file_runs.FAILING[kind](X, 0))
    assert not list(out.parent.iterdir())
    assert "resume" not in "".join(getattr(info.value, "__notes__", []))


def test_only_rows_that_are_not_safe_are_run_again(pair, out):
    _, safe = fail(pair, out, "array", 41)
    start = safe // (BATCH // 2) * (BATCH // 2)
    report = write(pair, out, X, resume=True)
    assert report.rows == NUM_ROWS - start


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("kind", ["array", "generator"])
def test_without_a_batch_size_that_of_the_first_run_is_kept(pair, out, kind, steps):
    options = {"batch_size": None, "steps": steps}
    count = NUM_ROWS if steps is None or kind == "array" else 7 * file_runs.USER_BATCH
    fail(pair, out, kind, 33, **options)
    before = journals.read(file_runs.journal_of(out)).progress
    report = write(pair, out, file_runs.FAILING[kind](X), resume=True, **options)
    assert steps or report.batch_size == before.batch_size
    expected = pair.predict(X[:count], verbose=0)
    np.testing.assert_allclose(np.load(out), expected, rtol=1e-6)


def test_the_batch_of_a_model_of_fixed_batches_is_kept(strategies, out):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.classifier(fixed_batch=4))
    fail(predictor, out, "generator", 33, batch_size=None)
    write(predictor, out, file_runs.generator(X), batch_size=None, resume=True)
    file_runs.assert_holds(out, predictor.predict(X, verbose=0))


def test_a_finished_run_is_only_given_its_name(pair, out, monkeypatch):
    expected = uninterrupted(pair, out, X)

    def stop(target):
        raise places.Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Target, "place", stop)
        with pytest.raises(places.Stopped):
            write(pair, out, X)
    assert not out.exists()
    with pytest.raises(FileExistsError, match="was begun. Pass resume=True"):
        write(pair, out, X)
    report = write(pair, out, X, resume=True)
    assert report.rows == 0
    assert_same_files(out, expected)
    file_runs.assert_nothing_beside(out)


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_an_output_has_one_writer_at_a_time(pair, out, flag):
    x, refused = file_runs.rows(600), []

    def batches():
        for number, batch in enumerate(file_runs.generator(x)):
            if number == 60:  # far more than is read ahead: the output has begun
                with pytest.raises(BlockingIOError, match="another run is writing"):
                    write(pair, out, x, **{flag: True})
                refused.append(number)
            yield batch

    write(pair, out, batches())
    assert refused
    assert_same_files(out, uninterrupted(pair, out, x))


@pytest.mark.parametrize("has_finished", [True, False])
def test_what_another_run_wrote_before_the_first_batch_is_kept(
    predictors, out, has_finished
):
    def batches():
        if has_finished:
            write(predictors[1], out, X)
        else:
            fail(predictors[1], out, "generator", 33)
        before.update(places.tree(out.parent))
        yield from file_runs.generator(X)

    before = {}
    message = "is finished or was not written" if has_finished else "has changed: anoth"
    with pytest.raises(FileExistsError, match=message):
        write(predictors[2], out, batches())
    assert before and places.tree(out.parent) == before
