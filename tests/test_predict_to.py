"""`predict_to` from beginning to end: every file holds what `predict` returns."""

import json
import warnings

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.nonfinite import POLICIES
from keras_mgpu_strategy.notes import notes_of
from tests import file_runs
from tests.file_runs import BATCH, SUFFIXES
from tests.sinks import stored

NUM_ROWS = 61
X = file_runs.rows(NUM_ROWS)
METHODS = ("predict", "predict_proba", "predict_classes")


@pytest.fixture(scope="module", params=[1, 2, 3])
def predictor(request, strategies):
    with strategies[request.param].scope():
        return mgpu.Predictor(file_runs.classifier())


@pytest.fixture(scope="module")
def pair(strategies):
    with strategies[2].scope():
        return mgpu.Predictor(file_runs.classifier())


@pytest.fixture(params=SUFFIXES)
def path(request, tmp_path, monkeypatch):
    file_runs.make_small(monkeypatch)
    return tmp_path / f"out{request.param}"


def write(predictor, path, x, **options):
    return predictor.predict_to(
        path, x, **({"batch_size": BATCH, "verbose": 0} | options)
    )


@pytest.mark.parametrize("method", METHODS)
def test_files_hold_what_predict_returns(pair, path, method):
    expected = getattr(pair, method)(X, BATCH, verbose=0)
    for make in file_runs.INPUTS.values():
        write(pair, path, make(X), method=method, overwrite=True)
        file_runs.assert_holds(path, expected)


@pytest.mark.parametrize("kind", file_runs.INPUTS)
def test_any_number_of_replicas_writes_the_same(predictor, path, kind):
    expected = predictor.predict_proba(X, BATCH, verbose=0)
    report = write(predictor, path, file_runs.INPUTS[kind](X))
    file_runs.assert_holds(path, expected)
    file_runs.assert_nothing_beside(path)
    assert (report.rows, report.num_replicas) == (NUM_ROWS, predictor.num_replicas)
    assert report is predictor.report


def test_inputs_by_name(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_armed())
    x = {"a": X[:, :1], "b": X[:, 1:]}
    write(predictor, path, x)
    file_runs.assert_holds(path, predictor.predict(x, BATCH, verbose=0))


@pytest.mark.parametrize("kind", ["array", "generator"])
def test_without_a_batch_size_files_hold_the_same_results(pair, path, kind):
    write(pair, path, file_runs.INPUTS[kind](X), batch_size=None)
    (found,) = file_runs.results_in(path).values()
    np.testing.assert_allclose(found, pair.predict(X, verbose=0), rtol=1e-6)


def test_from_logits(pair, path):
    write(pair, path, X, from_logits=True)
    expected = pair.predict_proba(X, BATCH, verbose=0, from_logits=True)
    file_runs.assert_holds(path, expected)


@pytest.mark.parametrize("batch_size", [BATCH, np.int64(BATCH)])
def test_steps(pair, path, batch_size):
    write(pair, path, X, steps=3, batch_size=batch_size)
    file_runs.assert_holds(path, pair.predict(X[: 3 * BATCH], BATCH, verbose=0))


@pytest.mark.parametrize("kind", ["array", "generator", "dataset"])
def test_several_outputs(strategies, path, kind):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_headed())
    expected = predictor.predict(X, BATCH, verbose=0)
    write(predictor, path, file_runs.INPUTS[kind](X))
    file_runs.assert_holds(path, expected)
    if path.suffix == ".npy":
        index = json.loads((path / "index.json").read_text())
        assert index["structure"] == {"chance": "chance", "scores": "scores"}
        assert index["num_rows"] == NUM_ROWS


@pytest.mark.parametrize("kind", ["array", "generator"])
@pytest.mark.parametrize("make", [file_runs.classifier, file_runs.two_headed])
def test_no_rows(strategies, path, make, kind):
    with strategies[2].scope():
        predictor = mgpu.Predictor(make())
    expected = predictor.predict(X[:0], verbose=0)
    report = write(predictor, path, file_runs.INPUTS[kind](X[:0]))
    assert report.rows == 0
    file_runs.assert_holds(path, expected)
    file_runs.assert_nothing_beside(path)
    if path.is_dir() and path.suffix == ".npy":
        structure = json.loads((path / "index.json").read_text())["structure"]
        assert structure == {"chance": "chance", "scores": "scores"}


# What is there already.


def test_an_output_is_replaced_only_on_demand(pair, path):
    write(pair, path, X)
    before = stored.content(path)
    other = file_runs.rows(20, seed=1)
    for options in ({}, {"resume": True}):
        with pytest.raises(FileExistsError, match="Pass overwrite=True to replace it"):
            write(pair, path, other, **options)
    assert stored.content(path) == before
    write(pair, path, other, overwrite=True)
    file_runs.assert_holds(path, pair.predict(other, BATCH, verbose=0))
    file_runs.assert_nothing_beside(path)


def test_the_old_output_stays_until_the_new_one_is_complete(pair, path):
    write(pair, path, X)
    before = stored.content(path)
    new = file_runs.rows(NUM_ROWS, seed=1)

    def looking(fails):
        for start, batch in enumerate(file_runs.generator(new)):
            assert stored.content(path) == before
            if fails and start == 7:
                raise file_runs.Broken
            yield batch

    with pytest.raises(file_runs.Broken):
        write(pair, path, looking(fails=True), overwrite=True)
    assert stored.content(path) == before
    write(pair, path, looking(fails=False), resume=True)
    file_runs.assert_holds(path, pair.predict(new, BATCH, verbose=0))
    file_runs.assert_nothing_beside(path)


def test_an_output_of_another_kind_is_replaced(pair, path):
    if path.suffix in (".parquet", ".zarr"):
        path.write_text("a file")
    else:
        path.mkdir()
        (path / "a file").write_text("in a folder")
    write(pair, path, X, overwrite=True)
    file_runs.assert_holds(path, pair.predict(X, BATCH, verbose=0))
    file_runs.assert_nothing_beside(path)


def test_resuming_without_an_earlier_run_begins(pair, path):
    write(pair, path, X, resume=True)
    file_runs.assert_holds(path, pair.predict(X, BATCH, verbose=0))


# Bad requests, found before any work.


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fit"}, r"method='fit'. Expected one of \['predict'"),
        ({"method": "predict", "from_logits": True}, "returns what the model returns"),
        ({"on_nonfinite": "drop"}, r"on_nonfinite='drop'. Expected one of"),
        ({"resume": True, "overwrite": True}, "Expected one: the first goes on"),
        ({"shard": (2, 2)}, r"shard=\(2, 2\). Expected the first to be one of 0 to 1"),
        ({"batch_size": 0}, "batch_size=0.*expected 1 or more"),
        ({"verbose": 7}, "verbose"),
    ],
)
def test_bad_options_touch_nothing(pair, tmp_path, options, message):
    with pytest.raises(ValueError, match=message):
        write(pair, tmp_path / "out.npy", X, **options)
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("name", ["out", "out.txt", "out.npz"])
def test_unknown_suffixes_touch_nothing(pair, tmp_path, name):
    with pytest.raises(ValueError, match="ends in one of .npy, .parquet, .zarr, .csv"):
        write(pair, tmp_path / name, X)
    assert not list(tmp_path.iterdir())


def test_a_missing_folder_is_found_before_any_work(pair, path):
    def never():
        raise AssertionError("read")
        yield

    with pytest.raises(FileNotFoundError, match="There is no folder"):
        write(pair, path.parent / "no" / path.name, never())


def test_inputs_that_do_not_fit_touch_nothing(pair, path):
    with pytest.raises(ValueError):
        write(pair, path, X[:, :1])
    assert not list(path.parent.iterdir())


# Results that are no numbers, or no probabilities.


def with_nan(*bad):
    x = X.copy()
    x[list(bad)] = np.nan
    return x


def test_rows_that_are_not_finite_are_named_once(pair, path):
    x = with_nan(3, 4, 5, 30)
    with pytest.warns(UserWarning, match="in 4 rows: 3 to 5, 30. Look at") as record:
        write(pair, path, x, method="predict")
    assert len(record) == 1
    file_runs.assert_holds(path, pair.predict(x, BATCH, verbose=0))


def test_rows_that_are_not_finite_can_be_ignored(pair, path):
    write(pair, path, with_nan(3), method="predict", on_nonfinite="ignore")
    expected = pair.predict(with_nan(3), BATCH, verbose=0)
    file_runs.assert_holds(path, expected)


def test_rows_that_are_not_finite_can_end_the_run(pair, path, monkeypatch):
    file_runs.make_small(monkeypatch, flushes=True)
    options = {"method": "predict", "on_nonfinite": "raise"}
    with pytest.raises(ValueError, match="NaN or infinite in 1 rows: 47. Look") as info:
        write(pair, path, file_runs.generator(with_nan(47)), **options)
    safe = file_runs.safe_rows(path)
    assert 0 < safe <= 47
    assert f"Rows 0 to {safe} are safe in" in notes_of(info.value)[-1]
    write(pair, path, file_runs.generator(X), resume=True, **options)
    file_runs.assert_holds(path, pair.predict(X, BATCH, verbose=0))


def test_policies_are_those_documented():
    assert POLICIES == ("raise", "warn", "ignore")


def test_values_that_are_no_probabilities(strategies, path):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.classifier(activation=None))
    with pytest.raises(ValueError, match="Invalid probability values"):
        write(predictor, path, X, strict=True)
    assert not path.exists()
    with pytest.warns(UserWarning, match="Invalid probability values"):
        write(predictor, path, X, overwrite=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(predictor, path, X, overwrite=True, method="predict")
    file_runs.assert_holds(path, predictor.predict(X, BATCH, verbose=0))
