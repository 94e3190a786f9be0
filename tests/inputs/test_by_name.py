"""Which inputs other processes open themselves, and which are sent."""

import os
import pickle

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy import files
from keras_mgpu_strategy.inputs.by_name import named_rows
from keras_mgpu_strategy.inputs.opening import as_source
from keras_mgpu_strategy.sources.arrays import ArraySource
from keras_mgpu_strategy.types import NamedRows

ROWS = np.arange(40, dtype=np.float32).reshape(20, 2)
SPEC = tf.TensorSpec((None, 2), tf.float32, name="x")


@pytest.fixture
def path(tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    return tmp_path / "rows.npy"


def shipped(x, input_spec=SPEC):
    """The batches sent to another process: 8 rows each, starting at row 4."""
    source = as_source(x, input_spec=input_spec)
    return list(named_rows(x, source, input_spec).batches(8, 4))


def is_named(x):
    return all(isinstance(batch.inputs, NamedRows) for batch in shipped(x))


def opened(batch):
    """The rows as another process reads them."""
    named = pickle.loads(pickle.dumps(batch.inputs))
    source = named.open_fn()
    return next(source.batches(named.stop - named.start, named.start)).inputs


def test_a_file_is_sent_by_name_without_its_rows(path):
    batches = shipped(path)
    assert [(b.start, b.num_rows) for b in batches] == [(4, 8), (12, 8)]
    assert len(pickle.dumps(batches[0].inputs)) < 2000
    for batch in batches:
        np.testing.assert_array_equal(
            opened(batch), ROWS[batch.start : batch.start + 8]
        )


def test_parts_of_a_name_are_counted_from_its_own_first_row(path):
    named = shipped(path)[1].inputs
    part = named[2:6]
    assert (part.start, part.stop) == (14, 18)
    assert (named[6:].start, named[6:].stop) == (18, 20)
    assert (named[:3].start, named[:3].stop) == (12, 15)


def test_a_memory_map_of_a_whole_file_is_its_file(path):
    assert is_named(np.load(path, mmap_mode="r"))


@pytest.mark.parametrize(
    "change",
    [
        lambda x: x[2:],
        lambda x: x[::-1],
        lambda x: x[:, :1],
        lambda x: x[:],
        lambda x: x.reshape(10, 4),
        lambda x: x.view(np.int32),
        lambda x: x + 0,
        lambda x: np.asarray(x),
        lambda x: np.memmap(x.filename, np.float32, "r", shape=(20, 2)),  # no header
        lambda x: np.memmap(x.filename, np.float32, "r", x.offset, (19, 2)),
    ],
)
def test_another_view_of_a_file_is_not_taken_for_it(change, path):
    x = change(np.load(path, mmap_mode="r"))
    source = ArraySource(x)
    assert named_rows(x, source, None) is source


@pytest.mark.parametrize("mode", ["r+", "c"])
def test_a_memory_map_that_may_have_been_changed_is_sent(mode, path):
    x = np.load(path, mmap_mode=mode)
    x[5] = 7
    (batch, _) = shipped(x)
    np.testing.assert_array_equal(batch.inputs[1], [7, 7])


def test_a_memory_map_whose_file_was_replaced_is_sent(path):
    x = np.load(path, mmap_mode="r")
    np.save(path.with_name("other.npy"), ROWS + 100)
    os.replace(path.with_name("other.npy"), path)
    np.testing.assert_array_equal(shipped(x)[0].inputs, ROWS[4:12])
    assert is_named(np.load(path, mmap_mode="r"))


def test_a_file_that_no_longer_exists(path):
    x = np.load(path, mmap_mode="r")
    path.unlink()
    np.testing.assert_array_equal(shipped(x)[0].inputs, ROWS[4:12])


def test_a_changed_file_is_noticed_when_it_is_opened(path):
    (batch, _) = shipped(path)
    np.save(path, ROWS[:19])
    with pytest.raises(ValueError, match=r"is not what it was .* 19 rows"):
        opened(batch)


def test_a_file_that_another_machine_lacks(path):
    (batch, _) = shipped(path)
    path.unlink()
    with pytest.raises(FileNotFoundError) as caught:
        opened(batch)
    assert "Expected on every machine" in caught.value.__notes__[0]


def test_relative_paths_are_opened_from_other_folders(path, monkeypatch, tmp_path):
    monkeypatch.chdir(path.parent)
    inputs = {"a": "rows.npy", "b": files.Npy("rows.npy")}
    spec = {name: SPEC for name in inputs}
    (single, _), (nest, _) = shipped("rows.npy"), shipped(inputs, spec)
    (tmp_path / "elsewhere").mkdir()
    monkeypatch.chdir(tmp_path / "elsewhere")
    np.testing.assert_array_equal(opened(single), ROWS[4:12])
    for array in opened(nest).values():
        np.testing.assert_array_equal(array, ROWS[4:12])


def write_images(folder, count=6):
    folder.mkdir()
    for index in range(count):
        pixels = np.full((4, 4, 3), index, np.uint8)
        name = os.fspath(folder / f"{index:02}.png")
        tf.io.write_file(name, tf.io.encode_png(pixels))
    return folder


def test_images_are_sent_by_name_even_in_a_relative_list(tmp_path, monkeypatch):
    folder = write_images(tmp_path / "images")
    spec = tf.TensorSpec((None, 4, 4, 3), tf.float32)
    monkeypatch.chdir(tmp_path)
    listed = [f"images/{index:02}.png" for index in range(6)]
    for x in (folder, listed):
        source = as_source(x, input_spec=spec)
        (batch,) = named_rows(x, source, spec).batches(8, 4)
        monkeypatch.chdir("/")
        assert opened(batch)[:, 0, 0, 0].tolist() == [4, 5]
        monkeypatch.chdir(tmp_path)
    (folder / "00.png").rename(folder / "99.png")
    (batch,) = named_rows(folder, as_source(folder, input_spec=spec), spec).batches(8)
    (folder / "99.png").rename(folder / "00.png")
    with pytest.raises(ValueError, match="is not what it was"):
        opened(batch)


@pytest.mark.parametrize("suffix", ["csv", "parquet"])
def test_files_that_are_slow_to_open_in_the_middle_are_sent(suffix, tmp_path):
    import pandas as pd

    frame = pd.DataFrame({"x": np.arange(20, dtype=np.float32)})
    path = tmp_path / f"rows.{suffix}"
    write = frame.to_csv if suffix == "csv" else frame.to_parquet
    write(path, index=False)
    spec = tf.TensorSpec((None,), tf.float32, name="x")
    (batch, _) = shipped(path, spec)
    np.testing.assert_array_equal(np.ravel(batch.inputs), np.arange(4, 12))


def test_an_input_without_rows_has_no_batches(tmp_path):
    np.save(tmp_path / "none.npy", ROWS[:0])
    source = as_source(tmp_path / "none.npy", input_spec=SPEC)
    assert list(named_rows(tmp_path / "none.npy", source, SPEC).batches(8)) == []
