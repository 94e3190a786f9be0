"""Rows of unequal length in files: stopped, resumed, and run in shards."""

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.sources import ragged_pieces
from keras_mgpu_strategy.sources.windows import Windows
from tests import file_runs
from tests.resuming import assert_same_files
from tests.runs.test_padded_runs import ENGINES, ROWS, masked_mean, predictor_on
from tests.runs.to_file.test_predict_to_killed import snapshots

PADS = {
    "tokens": (mgpu.Pad(max_tokens=90, window=64), None),
    "rows": (mgpu.Pad(window=64), 6),
}


@pytest.fixture(autouse=True)
def small(monkeypatch):
    file_runs.make_small(monkeypatch, flushes=True)


@pytest.fixture(params=[1 << 26, 3000], ids=["whole", "in_bytes"])
def most_bytes(request, monkeypatch):
    """Windows of 64 rows, or fewer if they take more bytes."""
    monkeypatch.setattr(ragged_pieces, "MOST_BYTES", request.param)


def write(predictor, path, num_replicas, how, **options):
    pad, size = PADS[how]
    options = {"verbose": 0, "pad": pad} | options
    return predictor.predict_to(path, ROWS, size and size * num_replicas, **options)


def fail(predictor, path, num_replicas, how, fails_at, **options):
    """Runs until a window cannot be read; returns how many rows are safe."""
    planned = Windows._planned

    def failing(self, rows):
        if rows.start + rows.num_rows > fails_at:
            raise file_runs.Broken(f"at row {fails_at}")
        return planned(self, rows)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Windows, "_planned", failing)
        with pytest.raises(file_runs.Broken):
            write(predictor, path, num_replicas, how, **options)
    return file_runs.safe_rows(path)


@pytest.mark.parametrize("num_replicas", [1, 2, 3])
@pytest.mark.parametrize("how", PADS)
@ENGINES
def test_a_resumed_run_gives_the_same_bytes(
    strategies, tmp_path, most_bytes, engine, how, num_replicas
):
    model = masked_mean()
    whole = tmp_path / "whole" / "out.parquet"
    whole.parent.mkdir()
    write(predictor_on(strategies, 1, model), whole, 1, how)
    predictor = predictor_on(strategies, num_replicas, model, engine=engine)
    path, before = tmp_path / "out.parquet", 0
    for fails_at in (70, 150, 290):
        rows = fail(predictor, path, num_replicas, how, fails_at, resume=True)
        assert before < rows <= fails_at
        before = rows
    report = write(predictor, path, num_replicas, how, resume=True)
    assert report.rows < len(ROWS)
    assert_same_files(path, whole)


def test_shards_begin_at_windows_and_have_the_lengths_of_the_whole(
    strategies, tmp_path
):
    predictor = predictor_on(strategies, 2, masked_mean())
    whole = tmp_path / "whole.npy"
    write(predictor, whole, 2, "tokens")
    path = tmp_path / "out.npy"
    rows = []
    for index in (0, 1, 2):
        report = write(predictor, path, 2, "tokens", shard=(index, 3))
        rows.append(report.rows)
    assert rows == [64, 128, 108]
    merge(path)
    np.testing.assert_array_equal(np.load(path), np.load(whole))


def test_another_way_of_padding_is_another_run(strategies, tmp_path):
    predictor = predictor_on(strategies, 2, masked_mean())
    path = tmp_path / "out.npy"
    fail(predictor, path, 2, "tokens", 100)
    for pad in (mgpu.Pad(max_tokens=90, window=32), mgpu.Pad(max_tokens=91, window=64)):
        with pytest.raises(ValueError, match="pad: .* before, .* now"):
            write(predictor, path, 2, "tokens", resume=True, pad=pad)
    pad = mgpu.Pad(max_tokens=90, window=64, lengths=[40])
    with pytest.raises(ValueError, match=r"lengths: \[.*40\] before, \[40\] now"):
        write(predictor, path, 2, "tokens", resume=True, pad=pad)


def test_a_run_may_be_killed_between_any_two_changes_of_the_disk(
    strategies, tmp_path, monkeypatch
):
    predictor = predictor_on(strategies, 2, masked_mean())
    path = tmp_path / "own" / "out.parquet"
    path.parent.mkdir()
    taken = snapshots(
        lambda: write(predictor, path, 2, "tokens"),
        path.parent,
        tmp_path / "snapshots",
        monkeypatch,
    )
    assert len(taken) > 12
    for folder in taken:
        found = folder / path.name
        if (folder / f"{path.name}.journal").exists() or not found.exists():
            write(predictor, found, 2, "tokens", resume=True)
        assert_same_files(found, path)
        file_runs.assert_nothing_beside(found)
