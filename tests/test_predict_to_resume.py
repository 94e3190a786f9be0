"""Runs that failed are gone on with: the same bytes as if they never had."""

import filecmp
import os
import pathlib

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.notes import notes_of
from keras_mgpu_strategy.sinks import journal as journals
from keras_mgpu_strategy.sinks.target import Target
from tests import file_runs
from tests.file_runs import BATCH, SUFFIXES
from tests.sinks import places, stored

NUM_ROWS = 61
X = file_runs.rows(NUM_ROWS)


@pytest.fixture(scope="module")
def predictors(strategies):
    """Number of replicas -> a Predictor of the same model."""
    found = {}
    for num_replicas in (1, 2, 3):
        with strategies[num_replicas].scope():
            found[num_replicas] = mgpu.Predictor(file_runs.classifier())
    return found


@pytest.fixture
def pair(predictors):
    return predictors[2]


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path, monkeypatch):
    file_runs.make_small(monkeypatch, flushes=True)
    (tmp_path / "outputs").mkdir()
    return tmp_path / "outputs" / f"out{request.param}"


def write(predictor, path, x, **options):
    return predictor.predict_to(
        path, x, **({"batch_size": BATCH, "verbose": 0} | options)
    )


def uninterrupted(predictor, path, x, **options):
    """What a run that is never stopped writes, in a folder beside."""
    folder = path.parent.with_name("uninterrupted")
    folder.mkdir(exist_ok=True)
    write(predictor, folder / path.name, x, overwrite=True, **options)
    return folder / path.name


def assert_same_files(path, expected):
    """Compares files, or whole folders, byte for byte."""
    if path.is_file():
        assert filecmp.cmp(path, expected, shallow=False)
        return
    names = sorted(p.relative_to(path) for p in path.rglob("*"))
    assert names == sorted(p.relative_to(expected) for p in expected.rglob("*"))
    for name in names:
        if (path / name).is_file():
            assert filecmp.cmp(path / name, expected / name, shallow=False), name


def fail(predictor, path, kind, fails_at, **options):
    """Runs until the input fails; returns the error and how many rows are safe."""
    x = file_runs.FAILING[kind](X, fails_at)
    with pytest.raises(file_runs.ERRORS[kind]) as info:
        write(predictor, path, x, **options)
    return info.value, file_runs.safe_rows(path)


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
    *_, read, saved = notes_of(error)
    assert read.startswith(f"Raised while rows {safe} to")
    assert saved == (
        f"Rows 0 to {safe} are safe in {file_runs.partial_of(path)}. To go on from "
        "there, run the same with resume=True (--resume)."
    )


@pytest.mark.parametrize("kind", ["generator", "dataset"])
def test_an_error_in_the_first_batch_leaves_nothing(pair, path, kind):
    with pytest.raises(file_runs.ERRORS[kind]) as info:
        write(pair, path, file_runs.FAILING[kind](X, 0))
    assert not list(path.parent.iterdir())
    assert "resume" not in "".join(notes_of(info.value))


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
    with pytest.raises(FileExistsError, match="was begun. Pass resume=True to go on"):
        write(pair, path, X)
    report = write(pair, path, X, resume=True)
    assert report.rows == 0
    assert_same_files(path, expected)
    file_runs.assert_nothing_beside(path)


# What must be the same.


def assert_refused(pair, path, x, message, **options):
    before = places.tree(path.parent)
    with pytest.raises(ValueError, match=message) as info:
        write(pair, path, x, **({"resume": True} | options))
    assert places.tree(path.parent) == before
    return info.value


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"batch_size": BATCH * 2}, r"\(per-replica batch: 4 before, 8 now\)"),
        ({"batch_size": None}, r"\(per-replica batch: 4 before, None now\)"),
        ({"method": "predict"}, r"\(method: 'predict_proba' before, 'predict' now\)"),
        ({"from_logits": True}, r"\(from_logits: False before, True now\)"),
        ({"steps": 100}, r"\(steps: None before, 100 now\)"),
        ({"method": "predict", "steps": 3}, "method: .*; .*steps: None before, 3 now"),
    ],
)
def test_another_request_is_refused(pair, path, options, message):
    fail(pair, path, "generator", 33)
    message = f"tells of another run, so it cannot be gone on with .*{message}"
    assert_refused(pair, path, file_runs.generator(X), message, **options)


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: X[:-1], "rows of the input: 61 before, 60 now"),
        (lambda: file_runs.generator(X), "rows of the input: 61 before, None now"),
    ],
    ids=["rows", "generator"],
)
def test_another_input_is_refused(pair, path, make, message):
    fail(pair, path, "array", 33)
    assert_refused(pair, path, make(), message)


def test_what_is_cast_to_the_same_input_is_the_same(pair, path):
    fail(pair, path, "array", 33)
    write(pair, path, X.astype(np.float64), resume=True)
    assert_same_files(path, uninterrupted(pair, path, X))


def test_strings_in_place_of_numbers_are_refused(pair, path):
    fail(pair, path, "array", 33)
    assert_refused(pair, path, X.astype(str), "float32")


def test_another_model_is_refused(pair, strategies, path):
    fail(pair, path, "generator", 33)
    with strategies[2].scope():
        other = mgpu.Predictor(file_runs.classifier(seed=8))
    message = r"tells of another run.*\(model: '\w+\.\.\. before, '\w+\.\.\. now\)"
    assert_refused(other, path, file_runs.generator(X), message)


def test_the_same_model_on_other_replicas_goes_on(predictors, path):
    fail(predictors[2], path, "generator", 33)
    write(predictors[1], path, file_runs.generator(X), resume=True, batch_size=4)
    assert_same_files(path, uninterrupted(predictors[2], path, X))


def test_more_replicas_with_another_share_are_refused(predictors, path):
    fail(predictors[1], path, "generator", 33)
    message = r"per-replica batch: 8 before, 4 now"
    assert_refused(predictors[2], path, file_runs.generator(X), message)


@pytest.mark.parametrize("at", [0, 20, -1, -20])
def test_a_damaged_journal_is_refused(pair, path, at):
    fail(pair, path, "generator", 33)
    journal = file_runs.journal_of(path)
    content = bytearray(journal.read_bytes())
    content[at] ^= 1
    journal.write_bytes(content + b"\n" * (at == -1))
    assert_refused(pair, path, file_runs.generator(X), "is damaged in line")


def test_a_missing_partial_output_is_refused(pair, path):
    fail(pair, path, "generator", 33)
    os.rename(file_runs.partial_of(path), path.with_name("elsewhere"))
    error = assert_refused(pair, path, file_runs.generator(X), "is missing")
    assert "are safe in" not in "".join(notes_of(error))
    os.rename(path.with_name("elsewhere"), file_runs.partial_of(path))
    write(pair, path, file_runs.generator(X), resume=True)
    assert_same_files(path, uninterrupted(pair, path, X))


def test_a_truncated_partial_output_is_refused(pair, path):
    fail(pair, path, "generator", 33)
    partial = file_runs.partial_of(path)
    whole = stored.content(partial)
    for name, content in whole.items():
        if name.endswith("zarr.json"):
            continue
        file = partial / name if name else partial
        file.write_bytes(content[: len(content) // 3])
    assert_refused(pair, path, file_runs.generator(X), "cannot be continued")


def test_a_generator_that_has_become_shorter_is_refused(pair, path):
    fail(pair, path, "generator", 33)
    message = "Received start=.*, but the input has only 20 rows"
    assert_refused(pair, path, file_runs.generator(X[:20]), message)
    write(pair, path, file_runs.generator(X), resume=True)
    assert_same_files(path, uninterrupted(pair, path, X))


def test_a_generator_that_was_used_is_refused(pair, path):
    fail(pair, path, "generator", 33)
    x = file_runs.generator(X)
    pair.predict(x, BATCH, steps=2, verbose=0)
    rest = NUM_ROWS - 2 * file_runs.USER_BATCH
    write(pair, path, x, resume=True)
    assert len(file_runs.results_in(path).popitem()[1]) == rest


# Shards.

COUNT = 3


def shard_of(predictor, path, index, x=X, **options):
    return write(predictor, path, x, shard=(index, COUNT), **options)


def joined(path, count=COUNT):
    """The results of all shards, as one file or folder of them holds them."""
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


def assert_close(found, expected):
    """Compares but for last bits: without shards, rows have other places in batches."""
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_shards_together_hold_what_predict_returns(predictors, path):
    x = file_runs.rows(400)
    expected = predictors[2].predict(x, BATCH, verbose=0)
    # As on machines of different size.
    for index, num_replicas in ((2, 1), (0, 2), (1, 3)):
        predictor = predictors[num_replicas]
        report = shard_of(predictor, path, index, x, batch_size=4 * num_replicas)
        assert 130 <= report.rows <= 136
    assert_close(joined(path), expected)


def test_a_shard_is_gone_on_with(pair, path):
    shard_of(pair, path, 0)
    shard_of(pair, path, 2)
    with pytest.raises(file_runs.Broken) as info:
        shard_of(pair, path, 1, file_runs.Array(X, 33))
    assert "Rows 20 to" in notes_of(info.value)[-1]
    shard_of(pair, path, 1, resume=True)
    for index in range(COUNT):
        before = places.tree(path.parent)
        assert shard_of(pair, path, index, resume=True).rows == 0
        assert places.tree(path.parent) == before
    assert_close(joined(path), pair.predict(X, BATCH, verbose=0))


def test_a_shard_that_was_run_is_run_again_on_demand(pair, path):
    for index in range(COUNT):
        shard_of(pair, path, index)
    with pytest.raises(FileExistsError, match="this shard of .* was begun"):
        shard_of(pair, path, 1)
    shard_of(pair, path, 1, overwrite=True)
    assert_close(joined(path), pair.predict(X, BATCH, verbose=0))


def test_shards_of_fewer_rows_than_shards(pair, path):
    for index in range(COUNT):
        shard_of(pair, path, index, X[:2])
    assert_close(joined(path), pair.predict(X[:2], verbose=0))


def test_another_number_of_shards_is_refused(pair, path):
    shard_of(pair, path, 0)
    before = places.tree(path.parent)
    with pytest.raises(FileExistsError, match="another number of shards than 4"):
        write(pair, path, X, shard=(1, 4))
    assert places.tree(path.parent) == before


@pytest.mark.parametrize("kind", ["generator"])
def test_shards_need_the_number_of_rows(pair, path, kind):
    with pytest.raises(ValueError, match=r"shard=\(0, 3\) needs an input whose number"):
        shard_of(pair, path, 0, file_runs.INPUTS[kind](X))
    assert not list(path.parent.iterdir())


# Stopped between any two changes of the disk.


def snapshots(run, folder, target, monkeypatch):
    """Copies a folder before every change of the disk that a run makes."""
    taken = []

    def watched(real):
        def call(*arguments, **options):
            number = len(taken)
            taken.append(file_runs.copied(folder, target / f"{number:03d}"))
            return real(*arguments, **options)

        return call

    with monkeypatch.context() as patch:
        for name in ("replace", "fsync"):
            patch.setattr(os, name, watched(getattr(os, name)))
        for name in ("unlink", "rmdir"):
            real = getattr(pathlib.Path, name)
            patch.setattr(pathlib.Path, name, watched(real))
        run()
    return taken


@pytest.mark.parametrize(("kind", "old"), [("array", True), ("generator", False)])
def test_a_run_may_be_killed_between_any_two_changes_of_the_disk(
    pair, path, kind, old, monkeypatch, tmp_path
):
    x = X[:25]
    make = file_runs.INPUTS[kind]
    expected = uninterrupted(pair, path, x)
    if old:
        write(pair, path, X[:9])
        before = stored.content(path)

    def run():
        write(pair, path, make(x), overwrite=old)

    taken = snapshots(run, path.parent, tmp_path / "snapshots", monkeypatch)
    assert_same_files(path, expected)
    assert len(taken) > 12
    for folder in taken:
        found = folder / path.name
        if found.exists() and not (old and stored.content(found) == before):
            assert_same_files(found, expected)
        if (folder / f"{path.name}.journal").exists() or not found.exists():
            write(pair, found, make(x), resume=True)
            assert_same_files(found, expected)
            file_runs.assert_nothing_beside(found)
