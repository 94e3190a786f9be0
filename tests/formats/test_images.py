"""Rows of images: parity with reading one by one, sizes, dtypes, identity, reading."""

import dataclasses
import pickle
import shutil
import threading
import time

import keras
import numpy as np
import pytest
import tensorflow as tf
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from image_cases import (
    pixels,
    read_all,
    references,
    takes,
    write_folder,
    write_jpeg,
    write_png,
)

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.formats.images.form import ImageForm
from keras_mgpu_strategy.formats.images.input import Images
from keras_mgpu_strategy.formats.images.source import ImageSource, num_batches_ahead

NUM_IMAGES = 23
SIZE = (6, 5)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("images")
    write_folder(folder, NUM_IMAGES)
    return folder


@pytest.fixture(scope="module")
def paths(folder):
    return sorted(path for path in folder.rglob("*") if path.is_file())


@pytest.fixture(scope="module")
def expected(paths):
    return references(paths, SIZE)


@pytest.fixture(scope="module")
def source(folder):
    return Images(folder).open_rows(takes(*SIZE, 3))


def test_what_is_known_without_reading(source, folder, paths):
    assert isinstance(Images(folder), FileInput)
    assert source.num_rows == NUM_IMAGES
    assert source.spec == tf.TensorSpec([None, *SIZE, 3], tf.float32)
    names = [path.relative_to(folder).as_posix() for path in paths]
    marks = source.marks(0, NUM_IMAGES)
    assert list(marks.names) == names
    assert marks.missing is None
    assert source.marks(3, 5).names == names[3:5]


@given(st.integers(1, NUM_IMAGES + 2), st.integers(0, NUM_IMAGES - 1))
@settings(
    max_examples=15,
    deadline=None,
    suppress_health_check=[HealthCheck.function_scoped_fixture],
)
def test_rows_are_those_of_reading_one_by_one(source, expected, batch_size, start):
    rows = read_all(source, batch_size, start)
    np.testing.assert_array_equal(rows, expected[start:])


def test_rows_are_those_of_keras(source, folder):
    theirs = keras.utils.image_dataset_from_directory(
        folder, labels=None, image_size=SIZE, shuffle=False, batch_size=4, verbose=False
    )
    assert theirs.file_paths == [f"{folder}/{n}" for n in source.marks(0, 23).names]
    np.testing.assert_array_equal(
        read_all(source), np.concatenate([batch.numpy() for batch in theirs])
    )


def test_starting_at_the_end_gives_nothing(source):
    assert list(source.batches(4, NUM_IMAGES)) == []
    with pytest.raises(ValueError, match="start=24, expected a row index from 0 to 23"):
        source.batches(4, 24)
    with pytest.raises(ValueError, match="batch_size=0"):
        source.batches(0)


def test_a_list_keeps_its_order_and_its_names(paths, expected):
    order = np.random.default_rng(0).permutation(NUM_IMAGES)
    listed = [str(paths[i]) for i in order] + [paths[0]]
    source = Images(listed).open_rows(takes(*SIZE, 3))
    np.testing.assert_array_equal(read_all(source), expected[[*order, 0]])
    assert source.marks(0, 1).names == [listed[0]]


def test_a_single_file(paths, expected):
    source = Images(str(paths[2])).open_rows(takes(*SIZE, 3))
    assert source.num_rows == 1
    np.testing.assert_array_equal(read_all(source), expected[2:3])


def test_reading_from_a_row_opens_no_earlier_file(tmp_path, expected):
    paths = write_folder(tmp_path, NUM_IMAGES)
    source = Images(tmp_path).open_rows(takes(*SIZE, 3))
    for path in paths[:20]:
        path.unlink()
    np.testing.assert_array_equal(read_all(source, 2, start=20), expected[20:])


def test_reading_ahead_is_bounded(tmp_path):
    paths = write_folder(tmp_path, 100)
    batches = Images(tmp_path).open_rows(takes(*SIZE, 3)).batches(2)
    next(batches)
    time.sleep(0.5)
    for path in paths[50:]:
        write_png(path, pixels(8, 8, seed=99))
    rest = np.concatenate([batch.inputs for batch in batches])
    # It is 12 on two cores; on slow machines TensorFlow may keep up to 16 batches.
    np.testing.assert_array_equal(rest[48:], references(paths[50:], SIZE))


@pytest.mark.parametrize(("rows", "num_ahead"), [(64, 2), (100, 2), (112, 1), (900, 1)])
def test_batches_read_ahead_depend_on_their_bytes(rows, num_ahead):
    assert num_batches_ahead(ImageForm(224, 224, 3), rows) == num_ahead


def test_two_readers_at_a_time(source, expected):
    results = {}

    def read(index):
        results[index] = read_all(source, index + 1)

    threads = [threading.Thread(target=read, args=(index,)) for index in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert sorted(results) == [0, 1, 2, 3]
    for rows in results.values():
        np.testing.assert_array_equal(rows, expected)


def test_a_reader_that_is_closed_early(source, expected):
    batches = source.batches(2)
    np.testing.assert_array_equal(next(batches).inputs, expected[:2])
    batches.close()
    np.testing.assert_array_equal(read_all(source), expected)


def test_pixels_for_a_model_of_integers(source, folder, expected):
    source = Images(folder).open_rows(takes(*SIZE, 3, dtype=tf.int32))
    assert source.spec == tf.TensorSpec([None, *SIZE, 3], tf.uint8)
    rows = read_all(source)
    assert rows.dtype == np.uint8
    np.testing.assert_array_equal(rows, np.round(expected))


def test_a_model_without_an_axis_of_channels(folder, paths):
    source = Images(folder).open_rows({"image": takes(*SIZE)})
    assert source.spec == tf.TensorSpec([None, *SIZE], tf.float32)
    gray = references(paths, SIZE, 1)[..., 0]
    np.testing.assert_array_equal(read_all(source), gray)


def test_identity(tmp_path):
    def identity(folder, shape=(6, 5, 3), **kwargs):
        return Images(folder, **kwargs).open_rows(takes(*shape)).origin().about

    paths = write_folder(tmp_path / "a", 5)
    first = identity(tmp_path / "a")
    shutil.copytree(tmp_path / "a", tmp_path / "b")
    assert identity(tmp_path / "b") == first
    assert identity(tmp_path / "a", on_bad_file="skip") == first
    assert identity(tmp_path / "a", preprocess="unit") != first
    assert identity(tmp_path / "a", shape=(6, 6, 3)) != first
    assert identity(paths) != identity(paths[::-1])
    write_png(tmp_path / "a/09/9.png", pixels(8, 8))
    assert identity(tmp_path / "a") != first
    write_png(paths[0], pixels(20, 20))
    assert identity(paths) != first


def test_identity_of_files_that_are_gone(tmp_path):
    path = write_jpeg(tmp_path / "a.jpg", pixels(8, 8))
    source = Images(path, on_bad_file="skip").open_rows(takes(*SIZE, 3))
    before = source.origin()
    path.unlink()
    assert source.origin() != before


def test_an_input_is_a_value(folder):
    images = Images([folder / "a.png"], [6, 5], "unit", "skip", "rgb")
    assert images == Images((folder / "a.png",), (6, 5), "unit", "skip", "rgb")
    assert pickle.loads(pickle.dumps(images)) == images
    assert hash(images) == hash(pickle.loads(pickle.dumps(images)))
    with pytest.raises(dataclasses.FrozenInstanceError):
        images.preprocess = "none"


@pytest.mark.parametrize(
    ("error", "message", "arguments"),
    [
        (TypeError, "paths of type int, expected a folder, a file or a list", (3,)),
        (TypeError, "paths of type bytes", (b"photos",)),
        (TypeError, "Received 3 as row 1 of the image files", (["a.png", 3],)),
        (ValueError, r"image_size=224, expected \(height, width\)", ("a", 224)),
        (ValueError, r"image_size=\(0, 5\), expected", ("a", (0, 5))),
        (ValueError, r"image_size=\(1, 2, 3\), expected", ("a", (1, 2, 3))),
        (ValueError, r"image_size=\(1.5, 2\), expected", ("a", (1.5, 2))),
        (ValueError, "preprocess='caffe', expected 'none'", ("a", None, "caffe")),
        (ValueError, "preprocess='a:b:c', expected", ("a", None, "a:b:c")),
        (ValueError, "preprocess=None, expected 'none'", ("a", None, None)),
        (
            ValueError,
            "on_bad_file='ignore', expected 'raise' or",
            ("a", None, "none", "ignore"),
        ),
        (
            ValueError,
            "color_mode='bgr', expected 'rgb', 'grayscale'",
            ("a", None, "none", "raise", "bgr"),
        ),
    ],
)
def test_arguments_that_are_refused(error, message, arguments):
    with pytest.raises(error, match=message):
        Images(*arguments)


def test_results_that_are_passed_on_have_names(folder, source):
    layers = [keras.Input((*SIZE, 3)), keras.layers.Flatten()]
    with mgpu.scope("CPU:0"):
        predictor = mgpu.Predictor(keras.Sequential(layers))
    batches = list(predictor.predict_iter(Images(folder), 8))
    names = [name for batch in batches for name in batch.marks.names]
    assert names == source.marks(0, NUM_IMAGES).names
    assert all(batch.marks.missing is None for batch in batches)


def test_only_runs_that_may_be_resumed_look_at_the_files(folder, monkeypatch):
    def origin(source):
        raise AssertionError("looked up")

    monkeypatch.setattr(ImageSource, "origin", origin)
    layers = [keras.Input((*SIZE, 3)), keras.layers.Flatten()]
    with mgpu.scope("CPU:0"):
        predictor = mgpu.Predictor(keras.Sequential(layers))
    assert len(predictor.predict(Images(folder))) == NUM_IMAGES
    with pytest.raises(AssertionError, match="looked up"):
        predictor.predict_to(folder.parent / "pixels.npy", Images(folder))
