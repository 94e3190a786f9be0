"""Runs that end between any two changes of the disk are resumed."""

import os
import pathlib

import pytest

from tests import file_runs
from tests.formats import stored
from tests.resuming import X, assert_same_files, uninterrupted, write


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
