"""Runs that failed are gone on with: the same bytes as if they never had."""

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
from tests.resuming import (
    NUM_ROWS,
    X,
    assert_same_files,
    fail,
    uninterrupted,
    write,
)


# An input fails at a row, and then again at another.
@pytest.mark.parametrize("num_replicas", [1, 2, 3])
@pytest.mark.parametrize("kind", file_runs.FAILING)
def test_a_run_that_failed_twice_ends_as_if_it_never_had(
    predictors, num_replicas, path, kind
):
    predictor = predictors[num_replicas]
    _, first = fail(predictor, path, kind, 23)
    _, second = fail(predictor, path, kind, 48, resume=True)
    assert 0 < first <= 23 < second <= 48
    write(predictor, path, file_runs.FAILING[kind](X), resume=True)
    expected = uninterrupted(predictor, path, X)
    assert_same_files(path, expected)
    file_runs.assert_nothing_beside(path)


@pytest.mark.parametrize("fails_at", [5, 8, 17, 60])
def test_a_run_may_fail_at_any_row(pair, path, fails_at):
    _, safe = fail(pair, path, "generator", fails_at)
    # All batches that the generator gave are on disk.
    assert safe == fails_at // file_runs.USER_BATCH * file_runs.USER_BATCH
    write(pair, path, file_runs.generator(X), resume=True)
    assert_same_files(path, uninterrupted(pair, path, X))


@pytest.mark.parametrize("fails_at", [17, 60])
def test_several_outputs_are_gone_on_with(strategies, path, fails_at):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_headed())
    fail(predictor, path, "generator", fails_at)
    write(predictor, path, file_runs.generator(X), resume=True)
    assert_same_files(path, uninterrupted(predictor, path, X))


@pytest.mark.parametrize("fails_at", [5, 17, 60])
def test_strings_are_resumed(strategies, path, fails_at):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.labelling())
    raw = {"method": "predict"}
    fail(predictor, path, "generator", fails_at, **raw)
    write(predictor, path, file_runs.generator(X), resume=True, **raw)
    assert_same_files(path, uninterrupted(predictor, path, X, **raw))
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


@pytest.mark.parametrize("fails_at", [9, 12, 23])
def test_rows_of_changing_shape_are_gone_on_with(strategies, path, fails_at):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.averaging())

    def make(fails_at=None):
        # Lengths change at rows that are no multiple of the batch.
        for batch in range(30):
            if batch == fails_at:
                raise file_runs.Broken
            yield file_runs.sequences(5, 3 + batch // 5, seed=batch)

    with pytest.raises(file_runs.Broken):
        write(predictor, path, make(fails_at))
    assert file_runs.safe_rows(path) == 5 * fails_at
    write(predictor, path, make(), resume=True)
    assert_same_files(path, uninterrupted(predictor, path, make()))


@pytest.mark.parametrize("kind", file_runs.FAILING)
def test_an_error_says_which_rows_and_how_to_go_on(pair, path, kind):
    error, safe = fail(pair, path, kind, 37)
    *_, read, saved = getattr(error, "__notes__", [])
    assert read.startswith(f"Raised while rows {safe} to")
    assert saved == (
        f"Rows 0 to {safe} are safe in {file_runs.partial_of(path)}. To resume "
        "from there, run the same with resume=True (--resume)."
    )


@pytest.mark.parametrize("kind", ["generator", "dataset"])
def test_an_error_in_the_first_batch_leaves_nothing(pair, path, kind):
    with pytest.raises(file_runs.ERRORS[kind]) as info:
        write(pair, path, file_runs.FAILING[kind](X, 0))
    assert not list(path.parent.iterdir())
    assert "resume" not in "".join(getattr(info.value, "__notes__", []))


def test_only_rows_that_are_not_safe_are_run_again(pair, path):
    _, safe = fail(pair, path, "array", 41)
    start = safe // (BATCH // 2) * (BATCH // 2)
    report = write(pair, path, X, resume=True)
    assert report.rows == NUM_ROWS - start


@pytest.mark.parametrize("steps", [None, 7])
@pytest.mark.parametrize("kind", ["array", "generator"])
def test_without_a_batch_size_that_of_the_first_run_is_kept(pair, path, kind, steps):
    options = {"batch_size": None, "steps": steps}
    count = NUM_ROWS if steps is None or kind == "array" else 7 * file_runs.USER_BATCH
    fail(pair, path, kind, 33, **options)
    if steps is None:
        before = journals.read(file_runs.journal_of(path)).progress
        report = write(pair, path, file_runs.FAILING[kind](X), resume=True, **options)
        assert report.batch_size == before.batch_size
    else:
        write(pair, path, file_runs.FAILING[kind](X), resume=True, **options)
    (found,) = file_runs.results_in(path).values()
    expected = pair.predict(X[:count], verbose=0)
    np.testing.assert_allclose(found.astype(np.float32), expected, rtol=1e-6)


def test_the_batch_of_a_model_of_fixed_batches_is_kept(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.classifier(fixed_batch=4))
    fail(predictor, path, "generator", 33, batch_size=None)
    write(predictor, path, file_runs.generator(X), batch_size=None, resume=True)
    file_runs.assert_holds(path, predictor.predict(X, verbose=0))


def test_a_finished_run_is_only_given_its_name(pair, path, monkeypatch):
    expected = uninterrupted(pair, path, X)

    def stop(target):
        raise places.Stopped

    with monkeypatch.context() as patch:
        patch.setattr(Target, "place", stop)
        with pytest.raises(places.Stopped):
            write(pair, path, X)
    assert not path.exists()
    with pytest.raises(FileExistsError, match="was begun. Pass resume=True"):
        write(pair, path, X)
    report = write(pair, path, X, resume=True)
    assert report.rows == 0
    assert_same_files(path, expected)
    file_runs.assert_nothing_beside(path)


@pytest.mark.parametrize("flag", ["resume", "overwrite"])
def test_an_output_has_one_writer_at_a_time(pair, path, flag):
    x, refused = file_runs.rows(600), []

    def batches():
        for number, batch in enumerate(file_runs.generator(x)):
            if number == 60:  # far more than is read ahead: the output has begun
                with pytest.raises(BlockingIOError, match="another run is writing"):
                    write(pair, path, x, **{flag: True})
                refused.append(number)
            yield batch

    write(pair, path, batches())
    assert refused
    assert_same_files(path, uninterrupted(pair, path, x))


@pytest.mark.parametrize("has_finished", [True, False])
def test_what_another_run_wrote_before_the_first_batch_is_kept(
    predictors, path, has_finished
):
    def batches():
        if has_finished:
            write(predictors[1], path, X)
        else:
            fail(predictors[1], path, "generator", 33)
        before.update(places.tree(path.parent))
        yield from file_runs.generator(X)

    before = {}
    message = "is finished or was not written" if has_finished else "has changed: anoth"
    with pytest.raises(FileExistsError, match=message):
        write(predictors[2], path, batches())
    assert before and places.tree(path.parent) == before
