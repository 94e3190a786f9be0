"""Nothing is unpickled: neither inputs nor what lies next to an output."""

import ast
import json
import pathlib
import pickle

import numcodecs
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import zarr

from keras_mgpu_strategy import files
from keras_mgpu_strategy.merge import merge
from keras_mgpu_strategy.models import read
from keras_mgpu_strategy.outputs import journal
from tests.command_line import mgpu_here
from tests.merging.sharded_outputs import TWO, write_shards
from tests.security import hostile

PACKAGE = pathlib.Path(__file__).parents[2] / "keras_mgpu_strategy"
SOURCES = {
    path.relative_to(PACKAGE).as_posix(): ast.parse(path.read_text())
    for path in PACKAGE.rglob("*.py")
}
UNPICKLERS = {"cloudpickle", "dill", "joblib", "marshal", "pickle", "shelve", "_pickle"}
RUNNERS = {"eval", "exec", "compile", "__import__"}
LOADERS = {"yaml.load", "torch.load", "pd.read_pickle", "pandas.read_pickle"}
RAYS = "engines/ray/pickling.py"
"""The module that uses Ray's own pickling of the user's objects, see SECURITY.md."""


@pytest.fixture
def marker(tmp_path):
    """A folder that exists once something was unpickled."""
    return tmp_path / "unpickled"


def npy(folder, marker):
    path = folder / "x.npy"
    path.write_bytes(hostile.npy_bytes(hostile.pickled_array(marker)))
    return path, files.Npy(path)


def npz(folder, marker):
    path = folder / "x.npz"
    np.savez(path, x=hostile.pickled_array(marker), allow_pickle=True)
    return path, files.Npz(path, "x")


def compressed_npz(folder, marker):
    path = folder / "x.npz"
    np.savez_compressed(path, x=hostile.pickled_array(marker), allow_pickle=True)
    return path, files.Npz(path, "x")


def npy_nest(folder, marker):
    path, _ = npy(folder, marker)
    return path, files.Npy(str(path))


@pytest.mark.parametrize("make", [npy, npz, compressed_npz, npy_nest])
def test_arrays_of_objects_are_refused(make, tmp_path, marker):
    path, rows = make(tmp_path, marker)
    with pytest.raises(ValueError, match=f"{path.name}.*Python objects.*never unpickl"):
        rows.open_rows(None)
    assert not marker.exists()
    np.load(path, allow_pickle=True)["x" if path.suffix == ".npz" else ...]
    assert marker.exists()  # the file does do harm


def test_zarr_codecs_that_unpickle_are_refused(tmp_path, marker, monkeypatch):
    path = tmp_path / "x.zarr"
    zarr.create_array(path, shape=(3,), chunks=(3,), dtype="f4", zarr_format=2)
    metadata = json.loads((path / ".zarray").read_text())
    metadata |= {"dtype": "|O", "fill_value": "", "filters": [{"id": "vlen-utf8"}]}
    metadata |= {"compressor": {"id": "pickle"}}
    (path / ".zarray").write_text(json.dumps(metadata))
    (path / "0").write_bytes(hostile.pickle_bytes(marker))
    # Newer versions of numcodecs require this; older ones unpickle anything.
    flag = "ALLOW_UNSAFE_PICKLE_DECODE"
    monkeypatch.setattr(numcodecs.pickles, flag, True, raising=False)
    with pytest.raises(ValueError, match="x.zarr.*encoded by pickle.*may run code"):
        files.Zarr(path).open_rows(None)
    assert not marker.exists()
    with pytest.raises(Exception):  # noqa: B017, PT011
        zarr.open(path, mode="r")[:]
    assert marker.exists()


def test_parquet_extension_types_are_not_unpickled(tmp_path, marker):
    path = tmp_path / "x.parquet"
    name, content = b"arrow.py_extension_type", hostile.pickle_bytes(marker)
    tags = {b"ARROW:extension:name": name, b"ARROW:extension:metadata": content}
    field = pa.field("x", pa.float64()).with_metadata(tags)
    table = pa.Table.from_arrays([pa.array([1.0])], schema=pa.schema([field]))
    pq.write_table(table, path)
    try:
        list(files.Parquet(path).open_rows(None).batches(1))
    except (ValueError, OSError) as error:
        assert "x.parquet" in str(error)
    assert not marker.exists()


def test_weights_of_objects_are_refused(tmp_path, marker, strategies):
    whole = hostile.save_model(tmp_path / "whole.keras")
    content = tmp_path / "weights.npz"
    np.savez(content, **{"layers/dense": hostile.pickled_array(marker)})
    changes = {"model.weights.h5": None, "model.weights.npz": content.read_bytes()}
    path = hostile.with_members(whole, tmp_path / "evil.keras", changes)
    with pytest.raises(ValueError, match="evil.keras"):
        read(path, strategies[1])
    assert not marker.exists()


def test_labels_of_objects_are_refused(tmp_path, marker, capsys):
    labels, _ = npy(tmp_path, marker)
    np.save(tmp_path / "rows.npy", np.zeros((3, 4), np.float32))
    model = hostile.save_model(tmp_path / "m.keras")
    arguments = [model, tmp_path / "rows.npy", f"--output={tmp_path / 'o.npy'}"]
    for more in ([f"--labels={labels}"], []):
        words = arguments if more else [model, labels, arguments[2]]
        with pytest.raises(SystemExit):
            mgpu_here("predict", *words, *more)
        assert "Python objects, which are never unpickled" in capsys.readouterr().err
    assert not marker.exists()


def test_shards_of_objects_are_refused(tmp_path, marker):
    path = tmp_path / "scores.npy"
    write_shards(path, TWO)
    part = tmp_path / "scores.shard-00001-of-00003.npy/second.npy"
    part.write_bytes(hostile.npy_bytes(hostile.pickled_array(marker)))
    with pytest.raises(ValueError, match="Shard 1 of .*Python objects.*never unpickl"):
        merge(path)
    assert not marker.exists()


def test_pickles_in_place_of_text_are_refused(tmp_path, marker):
    content = hostile.pickle_bytes(marker)
    path = tmp_path / "scores.npy"
    (tmp_path / "x.journal").write_bytes(content)
    with pytest.raises(ValueError, match="x.journal is damaged in line 1"):
        journal.read(tmp_path / "x.journal")
    write_shards(path, TWO)
    (tmp_path / "scores.shard-00001-of-00003.npy/index.json").write_bytes(content)
    with pytest.raises(ValueError, match="Shard 1 of .*has no index.json"):
        merge(path)
    (tmp_path / "scores.npy.merge").write_bytes(content)
    (tmp_path / "scores.npy.merge.partial").touch()
    with pytest.raises(ValueError, match="scores.npy.merge is not a note that mgpu"):
        merge(path)
    assert not marker.exists()
    pickle.loads(content)
    assert marker.exists()


def imported(tree):
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            yield node.module.split(".")[0]


def calls(tree):
    return [node for node in ast.walk(tree) if isinstance(node, ast.Call)]


def test_no_module_unpickles_or_runs_text():
    for name, tree in SOURCES.items():
        assert not UNPICKLERS & set(imported(tree)), name
        named = [ast.unparse(call.func) for call in calls(tree)]
        assert not (RUNNERS | LOADERS) & set(named), name
        texts = [n.value for n in ast.walk(tree) if isinstance(n, ast.Constant)]
        words = {t.split(".")[-1] for t in texts if isinstance(t, str)}
        assert not words & UNPICKLERS or name == RAYS, name


def test_no_module_allows_numpy_to_unpickle():
    for name, tree in SOURCES.items():
        for call in calls(tree):
            for keyword in call.keywords:
                if keyword.arg == "allow_pickle":
                    assert ast.unparse(keyword.value) == "False", name
