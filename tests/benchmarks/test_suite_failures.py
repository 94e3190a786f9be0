"""Failures during a measurement: what is reported, and what is left."""

import dataclasses
import json
import multiprocessing
import tempfile

import keras
import numpy as np
import pytest
from suite import child, measure, processes
from suite.interface import Setting
from suite.jobs import Job, Options, series

from keras_mgpu_strategy.benchmark.processes import serve
from tests import helpers
from tests.conformance import zoo

DEVICE = "/job:localhost/replica:0/task:0/device:CPU:0"


def record_of(folder, **options):
    """Measures one job in this process, whose CPU is already split into four."""
    options = Options(replicas=(4,), repetitions=1, devices="cpu", **options)
    (job,) = next(series(options)).jobs(4, None)
    words = [json.dumps(dataclasses.asdict(job)), str(folder / "record.json")]
    serve(lambda **fields: measure.run(Job(**fields)), *words)
    return json.loads((folder / "record.json").read_text())


def test_a_baseline_that_fails_after_its_first_batches_leaves_the_others(tmp_path):
    # 17 rows in batches of 8: under Keras' strategy the last batch leaves three
    # replicas without rows, on which layers may fail.
    path = str(tmp_path / "own.keras")
    layers = [zoo.NeverEmpty(), keras.layers.Dense(2)]
    keras.Sequential([keras.Input((3,)), *layers]).save(path)
    names = ("keras_strategy", "mgpu_threads")
    size = {"batch": 2, "rows": 17, "odd_rows": False}
    with keras.saving.custom_object_scope({"NeverEmpty": zoo.NeverEmpty}):
        record = record_of(tmp_path, models=(path,), contenders=names, **size)
    assert list(record["contenders"]) == list(names)
    failed, ours = record["contenders"].values()
    assert list(failed) == ["error"]
    assert ours["rows_run"] == 17 and len(ours["seconds"]) == 1


class NotSaved(keras.layers.Layer):
    def call(self, inputs):
        return inputs

    def get_config(self):
        raise OSError("disk full")


def test_processes_that_cannot_start_leave_nothing(strategies, tmp_path, monkeypatch):
    monkeypatch.setattr(processes, "_SHARED_MEMORY", "/nowhere")
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    model = keras.Sequential([keras.Input((2,)), NotSaved()])
    setting = Setting(model, None, strategies[1], 4, np.zeros((4, 2), np.float32))
    with pytest.raises(OSError, match="disk full"):
        processes.Processes(setting)
    assert list(tmp_path.iterdir()) == []


def test_a_process_reports_its_errors_and_continues(tmp_path):
    model = helpers.dense_model()
    model.save(tmp_path / "model.keras")
    rows = helpers.numbered_rows(5)
    np.save(tmp_path / "in.npy", rows)
    np.save(tmp_path / "out.npy", np.zeros((5, 3), np.float32))
    paths = [str(tmp_path / name) for name in ("in.npy", "out.npy", "none.npy")]
    ours, theirs = multiprocessing.Pipe()
    ours.send((paths[2], [paths[1]], 0, 5, 4))
    ours.send((paths[0], [paths[1]], 1, 4, 4))
    ours.send(None)
    child.main(theirs, str(tmp_path / "model.keras"), DEVICE)
    assert ours.recv() is None  # it has loaded the model
    assert ours.recv().startswith("FileNotFoundError: ")
    assert ours.recv() is None
    results = np.load(tmp_path / "out.npy")
    np.testing.assert_allclose(results[1:4], model(rows[1:4]), rtol=1e-5, atol=1e-5)
    assert not results[[0, 4]].any()


def test_a_process_that_finds_no_model_says_so(tmp_path):
    ours, theirs = multiprocessing.Pipe()
    child.main(theirs, str(tmp_path / "none.keras"), DEVICE)  # ends at once
    assert "none.keras" in ours.recv()
