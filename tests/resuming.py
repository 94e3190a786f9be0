"""Runs that fail and are resumed, for tests of `predict_to`."""

import filecmp

import pytest

from tests import file_runs

NUM_ROWS = 61
X = file_runs.rows(NUM_ROWS)


def write(predictor, path, x, **options):
    return predictor.predict_to(
        path, x, **({"batch_size": file_runs.BATCH, "verbose": 0} | options)
    )


def uninterrupted(predictor, path, x, **options):
    """What an uninterrupted run writes, in a folder next to it."""
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
    """Runs until the input raises; returns the error and how many rows are safe."""
    x = file_runs.FAILING[kind](X, fails_at)
    with pytest.raises(file_runs.ERRORS[kind]) as info:
        write(predictor, path, x, **options)
    return info.value, file_runs.safe_rows(path)
