"""What `.npy` files hold."""

import dataclasses
import io
import json

import ml_dtypes
import numpy as np
import pytest

from keras_mgpu_strategy.formats.npy import file as npy_file
from keras_mgpu_strategy.formats.npy.write import NpyFormat
from keras_mgpu_strategy.outputs.shards import Shard
from tests.formats import stored

DTYPES = ["?", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "c8"]


def saved(array):
    content = io.BytesIO()
    np.save(content, array, allow_pickle=False)
    return content.getvalue()


@pytest.mark.parametrize("shape", [(), (3,), (2, 1, 4), (0,)])
@pytest.mark.parametrize("num_rows", [0, 1, 1001])
def test_the_bytes_are_those_of_numpy_save(shape, num_rows, tmp_path):
    for dtype in DTYPES:
        outputs = stored.some((num_rows, *shape), dtype)
        layout = stored.layout_of(outputs, stop_row=num_rows)
        what = stored.Results(outputs, layout)
        for rows in (what, what.unknown()):
            found = stored.written("npy", tmp_path / "a", rows)
            assert found == {"": saved(outputs)}, dtype


@pytest.mark.parametrize("dtype", [ml_dtypes.bfloat16, ml_dtypes.float8_e4m3fn])
def test_types_that_files_lack_are_widened_exactly(dtype, tmp_path):
    every = np.arange(2 ** (8 * np.dtype(dtype).itemsize))
    outputs = every.astype(f"u{np.dtype(dtype).itemsize}").view(dtype)
    what = stored.Results(outputs, stored.layout_of(outputs))
    stored.written("npy", tmp_path / "out", what, step=1000)
    array = np.load(tmp_path / "out")
    assert array.dtype == np.float32
    np.testing.assert_array_equal(array, outputs.astype(np.float32))
    known = ~np.isnan(array)
    assert array[known].astype(dtype).tobytes() == outputs[known].tobytes()


def test_several_outputs_are_a_folder_with_an_index(tmp_path):
    what = stored.results(stored.nested, 30)
    files = stored.written("npy", tmp_path / "out", what)
    assert json.loads(files.pop("index.json")) == {
        "version": 1,
        "outputs": ["a", "heads_0", "heads_1_0", "heads_1_1"],
        "structure": {"a": "a", "heads": ["heads_0", ["heads_1_0", "heads_1_1"]]},
        "first_row": 0,
        "num_rows": 30,
    }
    heads = what.outputs["heads"]
    assert files == {
        "a.npy": saved(what.outputs["a"]),
        "heads_0.npy": saved(heads[0]),
        "heads_1_0.npy": saved(heads[1][0]),
        "heads_1_1.npy": saved(heads[1][1]),
    }


def test_room_is_reserved_if_the_rows_are_known(tmp_path):
    num_rows = 200_000
    layout = stored.layout_of(np.zeros((0, 4), np.float32), stop_row=num_rows)
    sink = NpyFormat().create(tmp_path / "out", layout)
    status = (tmp_path / "out").stat()
    assert status.st_size == 128 + num_rows * 16
    assert status.st_blocks * 512 >= num_rows * 16
    sink.close()


def begun(path):
    """An output with 20 of 30 rows written."""
    what = stored.results(stored.many, 30).unknown()
    return what, stored.begun("npy", path, what, 20)


def test_bytes_after_the_mark_are_dropped(tmp_path):
    what, mark = begun(tmp_path / "out")
    with open(tmp_path / "out/id.npy", "ab") as file:
        file.write(b"half of a row, and more" * 100)
    (tmp_path / "out/.index.json.partial").write_text("{")
    stored.assert_resumes("npy", tmp_path / "out", what, mark)


def shorter(path):
    path.write_bytes(path.read_bytes()[:-1])


def other(path):
    path.write_bytes(b"x" * path.stat().st_size)


def other_rows(path):
    np.save(path, np.zeros((30, 2), np.int64))


DAMAGES = [
    (shorter, "has 287 bytes, expected at least 288"),
    (other, "has no header of a .npy file"),
    (other_rows, r"holds int64 rows of shape \(2,\), expected int64 rows of shape"),
    (lambda path: path.unlink(), "id.npy is missing"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_file_cannot_be_continued(damage, message, tmp_path):
    what, mark = begun(tmp_path / "out")
    damage(tmp_path / "out/id.npy")
    stored.assert_not_resumed("npy", tmp_path / "out", what, mark, message)


def test_a_shard_is_a_file_of_its_own_rows(tmp_path):
    what = stored.results(stored.one, 90, first_row=32, stop_row=64, shard=Shard(1, 3))
    assert stored.written("npy", tmp_path / "out", what) == {"": saved(what.outputs)}
    what = dataclasses.replace(
        what, layout=dataclasses.replace(what.layout, stop_row=None, num_rows=None)
    )
    assert stored.written("npy", tmp_path / "un", what) == {"": saved(what.outputs)}


@pytest.mark.parametrize("shape", [(), (2, 3), (0,)])
@pytest.mark.parametrize("num_rows", [0, 1, 1001])
def test_strings_are_as_wide_as_the_longest(shape, num_rows, tmp_path):
    size = num_rows * int(np.prod(shape))
    values = [b"\xff\0x" * (index % 91) for index in range(size)]
    outputs = np.array(values, object).reshape(num_rows, *shape)
    what = stored.Results(outputs, stored.layout_of(outputs, stop_row=num_rows))
    expected = saved(np.array(values or [b""], "S")[:size].reshape(outputs.shape))
    for name, rows in (("a", what), ("b", what.unknown())):
        assert stored.written("npy", tmp_path / name, rows, step=50) == {"": expected}


def test_a_full_disk_while_strings_are_widened_loses_no_row(tmp_path, monkeypatch):
    def full(path, tag=""):
        raise OSError(28, "No space left on device")

    what = stored.results(stored.texts, 40).unknown()
    sink = NpyFormat().create(tmp_path / "out", what.layout)
    what.write(sink, 3)
    with monkeypatch.context() as patch:
        patch.setattr(npy_file.durable, "replacing", full)
        with pytest.raises(OSError, match="No space left"):
            what.write(sink, 40)
    mark = sink.flush()
    sink.close()
    assert mark["rows"] == 3
    stored.assert_resumes("npy", tmp_path / "out", what, mark)


def test_other_rows_in_place_of_strings_are_not_resumed(tmp_path):
    path, what = tmp_path / "out", stored.results(stored.texts, 9)
    what.outputs = what.outputs["label"]
    what.layout = stored.layout_of(what.outputs, stop_row=9)
    mark = stored.begun("npy", path, what, 5)
    np.save(tmp_path / "other.npy", np.zeros(9))
    (tmp_path / "other.npy").rename(path)
    message = "holds float64 rows, expected strings, so the unfinished"
    stored.assert_not_resumed("npy", path, what, mark, message)
