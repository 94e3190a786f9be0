"""What `.zarr` stores hold."""

import json
import time

import numpy as np
import pytest
import xarray
import zarr

from keras_mgpu_strategy.formats.zarr.array import writers_of
from keras_mgpu_strategy.formats.zarr.write import ZarrFormat
from keras_mgpu_strategy.outputs.shards import Shard
from tests.formats import stored

DTYPES = ["?", "i1", "u2", "i4", "u8", "f2", "f4", "f8", "c8"]
TINY = stored.FORMATS["zarr"]


@pytest.mark.parametrize("known", [True, False])
def test_every_type_and_shape_is_read(known, tmp_path):
    shapes = [(), (3,), (2, 3), (1,)]
    outputs = [stored.some((33, *s), dtype) for dtype in DTYPES for s in shapes]
    what = stored.Results(outputs, stored.layout_of(outputs, num_rows=33))
    what = what if known else what.unknown()
    stored.written("zarr", tmp_path / "out", what, step=5)
    group = zarr.open_group(tmp_path / "out", mode="r")
    for index, values in enumerate(outputs):
        array = group[f"output_{index}"]
        assert array.dtype == values.dtype
        np.testing.assert_array_equal(array[:], values)


def test_attributes_record_order_and_structure(tmp_path):
    what = stored.results(stored.nested, 30, has_names=True)
    stored.written("zarr", tmp_path / "out", what)
    group = zarr.open_group(tmp_path / "out", mode="r")
    assert dict(group.attrs) == {
        "outputs": ["a", "heads_0", "heads_1_0", "heads_1_1"],
        "structure": {"a": "a", "heads": ["heads_0", ["heads_1_0", "heads_1_1"]]},
    }
    assert sorted(group.array_keys()) == sorted([*group.attrs["outputs"], "file"])
    assert group["file"][:].tolist() == stored.names_of(0, 30)


def test_chunks_hold_a_power_of_two_of_rows(tmp_path):
    stored.written("zarr", tmp_path / "out", stored.results(stored.one, 30))
    group = zarr.open_group(tmp_path / "out", mode="r")
    assert group["output"].chunks == (4, 3)
    layout = stored.layout_of(np.zeros((1, 1000), np.float32))
    ZarrFormat().create(tmp_path / "usual", layout).close()
    assert zarr.open_array(tmp_path / "usual/output", mode="r").chunks == (1024, 1000)


def test_unwritten_rows_read_as_nan(tmp_path):
    what = stored.results(stored.one, 30)
    sink = TINY.create(tmp_path / "out", what.layout)
    what.write(sink, 10)
    sink.flush()
    array = zarr.open_array(tmp_path / "out/output", mode="r")
    np.testing.assert_array_equal(array[:10], what.outputs[:10])
    assert np.isnan(array[10:]).all()
    sink.close()


def shard(index, count=3, num_rows=40, row_multiple=16, make=stored.many):
    whole = make(num_rows)
    ends = [min(num_rows, row_multiple * i) for i in range(count)] + [num_rows]
    layout = stored.layout_of(
        whole,
        first_row=ends[index],
        stop_row=ends[index + 1],
        num_rows=num_rows,
        shard=Shard(index, count),
        row_multiple=row_multiple,
    )
    return stored.Results(stored.cut(whole, ends[index], ends[index + 1]), layout)


@pytest.mark.parametrize("order", [(0, 1, 2), (2, 0, 1)])
def test_shards_fill_one_store(order, tmp_path):
    path = tmp_path / "out"
    sinks = {index: TINY.create(path, shard(index).layout) for index in order}
    for index, sink in sinks.items():
        shard(index).write(sink, shard(index).stop)
        sink.finish()
    group = zarr.open_group(path, mode="r")
    for name, values in stored.many(40).items():
        np.testing.assert_array_equal(group[name][:], values)


def test_a_restarted_shard_leaves_the_others_rows(tmp_path):
    path = tmp_path / "out"
    for index in range(3):
        whole = stored.written("zarr", path, shard(index))
    sink = TINY.create(path, shard(1).layout)
    assert len(stored.content(path)) < len(whole)
    shard(1).write(sink, 20)
    mark = sink.flush()
    shard(1).write(sink, 32)
    sink.close()
    (path / "id/.c.9.partial").write_bytes(b"another shard writes this")
    (path / "id/.c.3.partial").write_bytes(b"torn")
    sink = TINY.reopen(path, shard(1).layout, mark)
    shard(1).write(sink, 32)
    sink.finish()
    left = stored.content(path)
    assert left.pop("id/.c.9.partial")
    assert left == whole


def test_shards_of_other_outputs_are_refused(tmp_path):
    path = tmp_path / "out"
    before = stored.written("zarr", path, shard(0))
    other = shard(1, num_rows=41)
    with pytest.raises(ValueError, match="zarr.json describes another array"):
        TINY.create(path, other.layout)
    assert stored.content(path) == before


def test_chunks_of_a_shard_are_no_larger_than_the_row_multiple(tmp_path):
    what = shard(1, row_multiple=2, num_rows=6, make=stored.number)
    stored.written("zarr", tmp_path / "out", what)
    assert zarr.open_array(tmp_path / "out/output", mode="r").chunks == (2,)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"shard": (0, 2), "stop_row": 16}, "needs to know the number of rows"),
        (
            {"shard": (1, 2), "first_row": 5, "stop_row": 30, "num_rows": 30},
            "holds rows 5 to 30. Expected multiples of 16",
        ),
        (
            {"shard": (0, 2), "stop_row": 17, "num_rows": 30},
            "holds rows 0 to 17. Expected multiples of 16",
        ),
    ],
)
def test_shards_that_would_share_chunks_are_refused(options, message):
    layout = stored.layout_of(stored.one(1), row_multiple=16, **options)
    with pytest.raises(ValueError, match=message):
        ZarrFormat().check(layout)


def test_rows_without_a_value_are_refused():
    message = r"whose rows of shape \(0,\) hold no values. .* a .npy or .csv output"
    with pytest.raises(ValueError, match=message):
        ZarrFormat().check(stored.layout_of(np.zeros((2, 0))))


def begun(path):
    """An output with 13 of 30 rows written."""
    what = stored.results(stored.one, 30)
    return what, stored.begun("zarr", path, what, 13)


def test_what_is_half_written_after_the_mark_is_dropped(tmp_path):
    what, mark = begun(tmp_path / "out")
    (tmp_path / "out/output/c.5.0").write_bytes(b"torn")
    (tmp_path / "out/output/.c.3.0.partial").write_bytes(b"torn")
    (tmp_path / "out/output/.zarr.json.partial").write_bytes(b"{")
    (tmp_path / "out/.zarr.json.partial").write_bytes(b"{")
    stored.assert_resumes("zarr", tmp_path / "out", what, mark)


def other_metadata(folder):
    path = folder / "zarr.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), "shape": [30, 4]}))


DAMAGES = [
    (lambda folder: (folder / "c.1.0").unlink(), "c.1.0 is missing"),
    (lambda folder: (folder / "c.3.0").write_bytes(b"x"), "output cannot be read"),
    (lambda folder: (folder / "zarr.json").unlink(), "zarr.json is missing"),
    (lambda folder: (folder / "zarr.json").write_text("{}"), "json cannot be read"),
    (other_metadata, "describes another array"),
]


@pytest.mark.parametrize(("damage", "message"), DAMAGES)
def test_a_damaged_store_cannot_be_continued(damage, message, tmp_path):
    what, mark = begun(tmp_path / "out")
    damage(tmp_path / "out/output")
    stored.assert_not_resumed("zarr", tmp_path / "out", what, mark, message)


def test_strings_are_read(tmp_path):
    what = stored.results(stored.texts, 30)
    stored.written("zarr", tmp_path / "out", what, step=7)
    group = zarr.open_group(tmp_path / "out", mode="r")
    for name, values in what.outputs.items():
        found = [[str(text).encode() for text in np.ravel(row)] for row in group[name]]
        assert found == [[*np.ravel(row)] for row in values]


@pytest.mark.filterwarnings("ignore:Failed to open Zarr store with consolidated")
@pytest.mark.filterwarnings("ignore:.*Zarr format 3 specification")
def test_xarray_opens_it(tmp_path):
    outputs = {
        "scores": stored.tensor(30),
        "scores_1": stored.some((30,), np.int64),
        "label": stored.texts(30)["label"],
    }
    layout = stored.layout_of(outputs, has_names=True)
    stored.written("zarr", tmp_path / "out", stored.Results(outputs, layout))
    with xarray.open_zarr(tmp_path / "out") as found:
        assert dict(found.sizes) == {"row": 30, "scores_1_2": 2, "scores_2": 3}
        assert found["scores"].dims == ("row", "scores_1_2", "scores_2")
        for name in ("scores_1", "label", "file"):
            assert found[name].dims == ("row",)
        np.testing.assert_array_equal(found["scores"], outputs["scores"])
        np.testing.assert_array_equal(found["scores_1"], outputs["scores_1"])


def test_chunks_of_many_outputs_are_smaller(tmp_path):
    one, many = ({f"o{i}": np.zeros((1, 4), "f4") for i in range(n)} for n in (1, 2000))
    layouts = map(stored.layout_of, (one, many))
    arrays = [writers_of(tmp_path, layout, 2**22, "") for layout in layouts]
    rows = [{array.chunk_rows for array in some} for some in arrays]
    assert rows == [{2**18}, {2**13}]


@pytest.mark.slow
def test_time_grows_no_faster_than_the_outputs(tmp_path):
    seconds = []
    for num_outputs in (100, 1000):
        outputs = {f"o{i}": np.zeros((5, 4), np.float32) for i in range(num_outputs)}
        what = stored.Results(outputs, stored.layout_of(outputs, num_rows=5))
        began = time.process_time()
        stored.written("zarr", tmp_path / f"{num_outputs}", what)
        seconds.append(time.process_time() - began)
    assert seconds[1] < 30 * seconds[0]
