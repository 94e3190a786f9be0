"""Existing outputs, bad options, and results that are not numbers."""

import warnings

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests import file_runs
from tests.file_runs import BATCH
from tests.formats import stored
from tests.resuming import NUM_ROWS, X, write


def test_an_output_is_replaced_only_on_demand(pair, path):
    write(pair, path, X)
    before = stored.content(path)
    other = file_runs.rows(20, seed=1)
    with pytest.raises(FileExistsError, match="Pass overwrite=True to replace it"):
        write(pair, path, other)
    message = "is finished, but another run wrote it .*rows of the input: 61 before, 20"
    with pytest.raises(ValueError, match=message):
        write(pair, path, other, resume=True)
    assert stored.content(path) == before
    write(pair, path, other, overwrite=True)
    file_runs.assert_holds(path, pair.predict(other, BATCH, verbose=0))
    file_runs.assert_nothing_beside(path)


def test_the_old_output_stays_until_the_new_one_is_complete(pair, out):
    write(pair, out, X)
    before = stored.content(out)
    new = file_runs.rows(NUM_ROWS, seed=1)

    def looking(fails):
        for start, batch in enumerate(file_runs.generator(new)):
            assert stored.content(out) == before
            if fails and start == 7:
                raise file_runs.Broken
            yield batch

    with pytest.raises(file_runs.Broken):
        write(pair, out, looking(fails=True), overwrite=True)
    assert stored.content(out) == before
    write(pair, out, looking(fails=False), resume=True)
    file_runs.assert_holds(out, pair.predict(new, BATCH, verbose=0))
    file_runs.assert_nothing_beside(out)


def test_an_output_of_another_kind_is_replaced(pair, path):
    if path.suffix in (".parquet", ".zarr"):
        path.write_text("a file")
    else:
        path.mkdir()
        (path / "a file").write_text("in a folder")
    write(pair, path, X, overwrite=True)
    file_runs.assert_holds(path, pair.predict(X, BATCH, verbose=0))
    file_runs.assert_nothing_beside(path)


def test_resuming_without_an_earlier_run_begins(pair, out):
    write(pair, out, X, resume=True)
    file_runs.assert_holds(out, pair.predict(X, BATCH, verbose=0))


def test_options_may_be_values_of_numpy(pair, out):
    options = {"batch_size": np.int64(BATCH), "shard": (np.int64(0), np.uint8(1))}
    write(pair, out, X, from_logits=np.True_, **options)
    assert pair.report.rows == NUM_ROWS


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"method": "fit"}, r"method='fit'. Expected one of \['predict'"),
        ({"method": "predict", "from_logits": True}, "returns what the model returns"),
        ({"method": "predict", "strict": True}, "need not be probabilities. Use pred"),
        ({"on_nonfinite": "drop"}, r"on_nonfinite='drop'. Expected one of"),
        ({"resume": True, "overwrite": True}, "Expected one: the first continues"),
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


def test_a_missing_folder_is_found_before_any_work(pair, out):
    def never():
        raise AssertionError("read")
        yield

    with pytest.raises(FileNotFoundError, match="There is no folder"):
        write(pair, out.parent / "no" / out.name, never())


def test_inputs_that_do_not_fit_touch_nothing(pair, out):
    with pytest.raises(ValueError):
        write(pair, out, X[:, :1])
    assert not list(out.parent.iterdir())


def with_nan(*bad):
    x = X.copy()
    x[list(bad)] = np.nan
    return x


def test_rows_that_are_not_finite_can_end_the_run(pair, out):
    options = {"method": "predict", "on_nonfinite": "raise"}
    with pytest.raises(ValueError, match="NaN or infinite in 1 rows: 47. Look") as info:
        write(pair, out, file_runs.generator(with_nan(47)), **options)
    safe = file_runs.safe_rows(out)
    assert 0 < safe <= 47
    assert f"Rows 0 to {safe} are safe in" in getattr(info.value, "__notes__", [])[-1]
    write(pair, out, file_runs.generator(X), resume=True, **options)
    file_runs.assert_holds(out, pair.predict(X, BATCH, verbose=0))


def test_values_that_are_not_probabilities(strategies, out):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.classifier(activation=None))
    with pytest.raises(ValueError, match="Invalid probability values"):
        write(predictor, out, X, strict=True)
    assert not out.exists()
    with pytest.warns(UserWarning, match="Invalid probability values"):
        write(predictor, out, X, overwrite=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        write(predictor, out, X, overwrite=True, method="predict")
    file_runs.assert_holds(out, predictor.predict(X, BATCH, verbose=0))
