"""Hostile journals, indices and notes, which are read back strictly."""

import dataclasses
import json

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from keras_mgpu_strategy.formats.npy.index import NpyIndex, read_index
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.metrics.kinds import kind_from
from keras_mgpu_strategy.outputs import journal
from keras_mgpu_strategy.outputs.column_names import check_described
from keras_mgpu_strategy.outputs.journal import Progress
from keras_mgpu_strategy.outputs.metric_states import array_of
from keras_mgpu_strategy.outputs.shards import Shard
from keras_mgpu_strategy.outputs.target import record_of
from tests.merging.sharded_outputs import NUM_SHARDS, TWO, write_shards
from tests.outputs import places
from tests.security.fuzzing import near, parsers

ABOUT = {
    "run": {"rows of the input": 10, "shard": [0, 3]},
    "layout": [["first", [None, 2], "float32"], ["second", [], "int64"]],
}
METRIC = {
    "name": "auc",
    "kind": "keras.AUC",
    "config": {"name": "auc"},
    "rows": [["int64", []], ["float32", [3]]],
    "arrays": [["float32", [2], "AACAPwAAAEA="]],
}
STEP = dataclasses.asdict(Progress(8, 4, 4, {"rows": 8, "bytes": 99}))
STEP["metrics"] = {"row": 5, "states": [METRIC]}


@pytest.fixture
def path(tmp_path):
    return tmp_path / "scores.npy.journal"


def read_or_refused(read, path):
    """What was read, or None if it was refused as it should be."""
    content = path.read_bytes()
    try:
        return read(path)
    except ValueError as error:
        assert str(path) in str(error)
        assert "again" in str(error), "what to do"
        assert path.read_bytes() == content
        return None


def check_journal(found):
    """Checks what all readers of a journal rely on."""
    assert found.about.keys() == {"run", "layout"}
    check_described(found.about["layout"])
    for name, shape, dtype in found.about["layout"]:
        assert "/" not in name and "\0" not in name and name not in ("", ".", "..")
        known = shape[1:] if shape[:1] == [None] else shape  # rows may differ in length
        assert all(size >= 0 for size in known) and isinstance(dtype, str)
    if found.progress is not None:
        assert 0 <= found.progress.start <= found.progress.rows < 2**63
        assert found.progress.finished or (
            found.progress.mark["rows"] == found.progress.rows
        )
        metrics = found.progress.metrics or {"row": found.progress.rows, "states": []}
        assert found.progress.start <= metrics["row"] <= found.progress.rows
        for state in metrics["states"]:
            assert isinstance(state["name"], str) and isinstance(state["config"], dict)
            assert all(array_of(array).size < 100 for array in state["arrays"])


@pytest.mark.parametrize(
    ("kind", "config"),
    [
        ("keras.deserialize", {}),
        ("keras.get", {}),
        ("keras.MeanMetricWrapper", {"fn": "os.system"}),
        ("keras.Mean", {"dtype": {"class_name": "DTypePolicy", "config": {}}}),
        ("keras.Mean", {"name": [{"class_name": "function"}]}),
        ("tf_keras.serialize", {}),
        ("own.Mean", {}),
        ("os.system", {}),
        ("", {}),
    ],
)
def test_journals_make_only_public_metrics(kind, config):
    with pytest.raises(ValueError, match="which is not known here"):
        kind_from(kind, config, {})


@parsers
@given(about=near(ABOUT), step=near(STEP))
def test_journals_with_other_values(about, step, path):
    first = {"journal": 1, "about": about}
    for records in ([first], [{"journal": 1, "about": ABOUT}, step], [first, step]):
        path.write_bytes(b"".join(map(places.line, records)))
        found = read_or_refused(journal.read, path)
        if found is not None:
            check_journal(found)


@parsers
@given(content=st.binary(max_size=200), has_crc=st.booleans(), is_first=st.booleans())
def test_journals_of_random_bytes(content, has_crc, is_first, path):
    content = places.line(content.replace(b"\n", b"")) if has_crc else content + b"\n"
    begun = b"" if is_first else places.line({"journal": 1, "about": ABOUT})
    path.write_bytes(begun + content)
    assert read_or_refused(journal.read, path) is None


REFUSED_LINES = {
    "a key that stands twice": b'{"rows": 8, "rows": 9}',
    "NaN": b'{"rows": NaN}',
    "infinity": b'{"rows": -Infinity}',
    "depth": b'{"rows": ' + b"[" * 100_000,
    "closed depth": b"[" * 5000 + b"]" * 5000,
    "no UTF-8": b'{"rows": "\xff"}',
    "UTF-16": json.dumps(STEP).encode("utf-16"),
    "more digits than Python reads": b'{"rows": ' + b"9" * 5000 + b"}",
    "nothing": b"",
    "a key too few": json.dumps({k: STEP[k] for k in list(STEP)[1:]}).encode(),
}


@pytest.mark.parametrize("content", REFUSED_LINES.values(), ids=REFUSED_LINES)
def test_lines_that_are_refused_though_their_checksum_is_right(content, path):
    path.write_bytes(places.line({"journal": 1, "about": ABOUT}) + places.line(content))
    with pytest.raises(ValueError, match=f"{path} is damaged in line 2.*overwrite="):
        journal.read(path)


@pytest.mark.parametrize(
    "name", ["../../x", "/etc/x", "a/b", "a\0b", "a\nb", "..", "", ".x", "a\\b", "CON"]
)
def test_names_of_outputs_that_are_paths_are_refused(name, path):
    about = {**ABOUT, "layout": [[name, [2], "float32"]]}
    path.write_bytes(places.line({"journal": 1, "about": about}))
    with pytest.raises(ValueError, match="is damaged in line 1 .it describes an out"):
        journal.read(path)


INDEX = json.loads(
    NpyIndex(("a", "b"), {"a": "a", "b": ["b"]}, 0, 10).content().decode()
)


@parsers
@given(content=st.one_of(near(INDEX).map(json.dumps).map(str.encode), st.binary()))
def test_indices_with_other_values(content, tmp_path):
    path = tmp_path / "index.json"
    path.write_bytes(content)
    try:
        index = read_index(path)
    except ValueError:
        return
    assert NpyIndex(**dataclasses.asdict(index)) == index
    assert index.first_row >= 0 and (index.num_rows is None or index.num_rows >= 0)
    assert all(isinstance(name, str) and "/" not in name for name in index.outputs)


def test_an_index_with_other_outputs_is_refused_by_merge(tmp_path):
    path = tmp_path / "scores.npy"
    write_shards(path, TWO)
    index = tmp_path / "scores.shard-00001-of-00003.npy/index.json"
    written = json.loads(index.read_text())
    for change in ({"first_row": 0}, {"num_rows": 9}, {"outputs": ["first"]}, {"x": 1}):
        index.write_text(json.dumps(written | change))
        with pytest.raises(ValueError, match="Shard 1 of .*index.json.*--overwrite"):
            merge(path)
    index.write_text(json.dumps(written | {"outputs": ["../../x", "second"]}))
    with pytest.raises(ValueError, match="Shard 1 of .*it lists the outputs"):
        merge(path)


NOTE = {"num_shards": 3, "num_rows": 10, "is_shared": False, "record": "ab"}
NOTE |= {"journals": {f"scores.npy.shard-0000{i}-of-00003.journal": i for i in (0, 1)}}


@parsers
@given(content=st.one_of(near(NOTE).map(json.dumps).map(str.encode), st.binary()))
@example(content=json.dumps({**NOTE, "record": "\ud800"}).encode())
def test_notes_of_merges_with_other_values(content, tmp_path):
    path, note = tmp_path / "scores.npy", tmp_path / "scores.npy.merge"
    path.write_bytes(b"precious")
    note.write_bytes(content)
    try:
        merged = merge(path)
    except (ValueError, FileNotFoundError) as error:
        assert str(path) in str(error)
    else:
        assert 0 < merged.num_shards <= 100_000 and 0 <= merged.num_rows < 2**63
    assert path.read_bytes() == b"precious"
    assert set(tmp_path.iterdir()) <= {path, note, record_of(path)}
    record_of(path).unlink(missing_ok=True)


@pytest.mark.parametrize(
    "name",
    ["shard-00000-of-99999999999999", "shard-00003-of-00002", "shard-00000-of-00000"]
    + ["shard-000000-of-00002", "shard-00001-of-100001"],
)
def test_invalid_names_of_journals(name, tmp_path):
    (tmp_path / f"scores.npy.{name}.journal").write_bytes(b"")
    with pytest.raises(ValueError, match=f"{name}.journal is named like.*Remove it"):
        merge(tmp_path / "scores.npy")


@parsers
@given(numbers=st.text("0123456789-of.shjournal٣", max_size=30))
def test_names_next_to_an_output(numbers, tmp_path):
    name = f"scores.npy.shard-{numbers}.journal"
    (tmp_path / name).write_bytes(b"")
    with pytest.raises((ValueError, FileNotFoundError), match="scores.npy"):
        merge(tmp_path / "scores.npy")
    (tmp_path / name).unlink()


@pytest.mark.parametrize("rows", [None, -1, "10", 1.5, True, 10**30])
def test_journals_of_shards_that_record_no_rows(rows, tmp_path):
    path = tmp_path / "scores.npy"
    write_shards(path, TWO, **{"rows of the input": rows})
    with pytest.raises(ValueError, match="records .* rows of the input.*--overwrite"):
        merge(path)


def test_journals_that_changed_places_are_refused(tmp_path):
    path = tmp_path / "scores.npy"
    write_shards(path, TWO)
    names = [f"scores.npy.{Shard(i, NUM_SHARDS).name}.journal" for i in (0, 1)]
    (tmp_path / names[1]).write_bytes((tmp_path / names[0]).read_bytes())
    with pytest.raises(ValueError, match=r"Shard 1 of .*journal of the shard \[0, 3\]"):
        merge(path)
