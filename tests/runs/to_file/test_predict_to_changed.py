"""Inputs and code that changed since a run was stopped are noticed; copies are not."""

import json
import os
import shutil

import keras
import numpy as np
import pandas as pd
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.digests import samples
from keras_mgpu_strategy.runs import run as runs
from tests import file_runs
from tests.outputs import places
from tests.resuming import X, assert_same_files, fail, uninterrupted, write

OTHER = X + np.float32(1)


class Stopped(Exception):
    """Stands for anything that ends a run."""


def stop(predictor, out, x, monkeypatch, num_batches=4, **options):
    """Runs some batches of an input that raises no error."""
    whole = runs.Run._counted

    def some(run, start):
        for number, batch in enumerate(whole(run, start)):
            if number == num_batches:
                raise Stopped
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "_counted", some)
        with pytest.raises(Stopped):
            write(predictor, out, x, **options)
    assert file_runs.safe_rows(out)


def assert_refused(predictor, out, x, message, **options):
    before = places.tree(out.parent)
    with pytest.raises(ValueError, match=message):
        write(predictor, out, x, resume=True, **options)
    assert places.tree(out.parent) == before


def as_npy(path, x):
    np.save(path, x)


def as_npz(path, x):
    np.savez(path, x=x)


def as_csv(path, x):
    frame = pd.DataFrame(np.round(x, 3), columns=["a", "b"])
    frame.to_csv(path, index=False, float_format="%+08.3f")


def as_parquet(path, x):
    frame = pd.DataFrame(x, columns=["a", "b"])
    frame.to_parquet(path, compression=None)


KINDS = {"x.npy": as_npy, "x.npz": as_npz, "x.csv": as_csv, "x.parquet": as_parquet}


@pytest.fixture(params=KINDS)
def file(request, tmp_path):
    """A file of rows, and a function that replaces them by others of the same size."""
    path = tmp_path / request.param
    KINDS[request.param](path, X)
    return path


def test_a_file_that_was_written_anew_is_noticed(
    pair, out, file, monkeypatch, tmp_path
):
    stop(pair, out, file, monkeypatch)
    before = file.stat()
    KINDS[file.name](file, OTHER)
    assert file.stat().st_size == before.st_size
    os.utime(file, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert_refused(pair, out, file, "content of the files: .* before, .* now")
    KINDS[file.name](file, X)
    # The same rows in another folder, with another name and time.
    other = shutil.move(file, tmp_path / f"y{file.suffix}")
    os.utime(other, (1, 1))
    write(pair, out, other, resume=True)
    assert_same_files(out, uninterrupted(pair, out, other))


@pytest.fixture
def large(tmp_path, monkeypatch):
    """A file that counts as large, and of which few bytes are sampled."""
    monkeypatch.setattr(samples, "MOST_BYTES", 2**10)
    monkeypatch.setattr(samples, "_SAMPLE_BYTES", 8)
    monkeypatch.setattr(samples, "_NUM_SAMPLES", 4)
    path = tmp_path / "large.npy"
    np.save(path, file_runs.rows(300))
    return path


def edit(path, row):
    """Changes one value of a `.npy` file in place."""
    array = np.load(path, mmap_mode="r+")
    array[row] += 1
    array.flush()


def rewrite(journal, changes):
    """Changes the records of a journal, and their checksums."""
    lines = []
    for line in journal.read_bytes().splitlines():
        record = json.loads(line.partition(b" ")[2])
        lines.append(places.line(record | changes(record)))
    journal.write_bytes(b"".join(lines))


def without_content(out):
    """Turns a journal into that of a run that ended before its input was all read."""
    rewrite(
        file_runs.journal_of(out),
        lambda record: dict.fromkeys({"content"} & record.keys()),
    )


def read_whole(predictor, out, large, monkeypatch):
    """Stops a run once a thread has read its whole input."""
    whole = runs.Run._counted

    def some(run, start):
        for number, batch in enumerate(whole(run, start)):
            if number == 2:
                thread = next(t for t in threads() if t.name == "mgpu-content")
                thread.join(60)
            if number == 4:
                raise Stopped
            yield batch

    with monkeypatch.context() as patch:
        patch.setattr(runs.Run, "_counted", some)
        started = content_threads(patch)
        threads = lambda: started  # noqa: E731
        with pytest.raises(Stopped):
            write(predictor, out, large)
    assert not any(thread.is_alive() for thread in started)


def content_threads(patch):
    """The threads that read inputs, in the order in which they are made."""
    from keras_mgpu_strategy.runs import fingerprint

    made, make = [], fingerprint.threading.Thread

    def noted(**options):
        made.append(make(**options))
        return made[-1]

    patch.setattr(fingerprint.threading, "Thread", noted)
    return made


def test_a_large_file_of_the_same_time_is_the_same(pair, out, large, monkeypatch):
    stop(pair, out, large, monkeypatch)
    without_content(out)
    write(pair, out, large, resume=True)
    assert_same_files(out, uninterrupted(pair, out, large))


def test_an_edit_that_no_sample_sees_is_noticed_by_its_time(
    pair, out, large, monkeypatch
):
    stop(pair, out, large, monkeypatch)
    without_content(out)
    edit(large, 41)
    message = "changed at .* before, and at .* now.*cannot be ruled out.*touch -d"
    assert_refused(pair, out, large, message)


def test_an_edit_that_samples_see_is_noticed_whatever_the_time(
    pair, out, large, monkeypatch
):
    stop(pair, out, large, monkeypatch)
    times = large.stat().st_atime_ns, large.stat().st_mtime_ns
    edit(large, -1)
    os.utime(large, ns=times)
    assert_refused(pair, out, large, "content of the files: 'samples")


def test_a_large_file_that_was_read_as_a_whole(pair, out, large, monkeypatch):
    read_whole(pair, out, large, monkeypatch)
    copy = large.with_name("copy.npy")
    shutil.copy(large, copy)
    os.utime(copy, (1, 1))
    edit(large, 41)
    assert_refused(pair, out, large, "content of the files: 'sha256 .* before, .* now")
    write(pair, out, copy, resume=True)
    assert_same_files(out, uninterrupted(pair, out, copy))


@pytest.mark.parametrize("kind", [np.asarray, tf.constant, pd.DataFrame])
def test_values_of_arrays_in_memory_count(pair, out, kind, monkeypatch):
    stop(pair, out, kind(X), monkeypatch)
    other = X.copy()
    other[-1, -1] += 1
    assert_refused(pair, out, kind(other), "values of x: .* before, .* now")
    write(pair, out, kind(X), resume=True)
    assert_same_files(out, uninterrupted(pair, out, X))


def test_the_first_row_of_streams_counts(pair, out):
    fail(pair, out, "generator", 33)
    other = file_runs.generator(X[::-1])
    assert_refused(pair, out, other, "first row: .* before, .* now")
    # Batches of another size have the same rows.
    write(pair, out, iter([X[:7], X[7:]]), resume=True)
    assert_same_files(out, uninterrupted(pair, out, X))


def test_inputs_in_another_order_are_noticed(strategies, out, monkeypatch):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_armed())
    arms = {"a": X[:, :1], "b": X[:, 1:]}
    stop(predictor, out, arms, monkeypatch)
    swapped = {"a": arms["b"], "b": arms["a"]}
    assert_refused(predictor, out, swapped, r"values of x\['a'\]: .*values of x\['b'\]")
    write(predictor, out, arms, resume=True)


def test_files_in_another_order_are_noticed(strategies, out, tmp_path, monkeypatch):
    with strategies[2].scope():
        predictor = mgpu.Predictor(file_runs.two_armed())
    paths = {name: tmp_path / f"{name}.npy" for name in "ab"}
    for index, path in enumerate(paths.values()):
        np.save(path, X[:, index : index + 1])
    stop(predictor, out, paths, monkeypatch)
    swapped = {"a": paths["b"], "b": paths["a"]}
    assert_refused(predictor, out, swapped, "content of the files")


def scaling(factor):
    """A model whose Lambda differs only in a constant."""
    functions = {1: lambda x: x * 1, 2: lambda x: x * 2}
    layer = keras.layers.Lambda(functions[factor])
    return keras.Sequential([keras.Input((2,)), layer])


def test_another_lambda_is_another_model(strategies, out, monkeypatch):
    made = []
    for factor in (1, 2):
        with strategies[2].scope():
            made.append(mgpu.Predictor(scaling(factor)))
    raw = {"method": "predict"}
    stop(made[0], out, X, monkeypatch, **raw)
    assert_refused(made[1], out, X, "model: .* before, .* now", **raw)
    write(made[0], out, X, resume=True, **raw)
    np.testing.assert_array_equal(np.load(out), X)


def records(path):
    with tf.io.TFRecordWriter(str(path)) as writer:
        for row in X:
            writer.write(row.tobytes())


def parsing(factor):
    def parse(record):
        return tf.reshape(tf.io.decode_raw(record, tf.float32), (2,)) * factor

    return parse


def test_another_parse_fn_is_another_run(pair, out, tmp_path, monkeypatch):
    records(tmp_path / "x.tfrecord")
    make = lambda f: mgpu.files.TFRecords(tmp_path / "x.tfrecord", parsing(f))  # noqa: E731
    stop(pair, out, make(1.0), monkeypatch, num_batches=3)
    assert_refused(pair, out, make(2.0), "how it is read: .* before, .* now")
    write(pair, out, make(1.0), resume=True)
    assert_same_files(out, uninterrupted(pair, out, X))


def test_journals_of_the_previous_version_are_refused(pair, out):
    fail(pair, out, "generator", 33)
    journal = file_runs.journal_of(out)
    rewrite(journal, lambda record: dict.fromkeys({"journal"} & record.keys(), 1))
    message = "written by an older version .* Finish the run with that version, or pass"
    assert_refused(pair, out, file_runs.generator(X), message)
    write(pair, out, file_runs.generator(X), overwrite=True)
