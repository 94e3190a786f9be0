"""Rows of unequal length on the command line: flags, files in and out, errors."""

import keras
import numpy as np
import pyarrow as pa
import pytest
from absl import flags
from command_line import DIGITS, IMAGES, predict_here
from command_line import mgpu as run_mgpu
from pyarrow import parquet

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.cli import run


@pytest.mark.parametrize(
    ("words", "pad"),
    [
        ("", None),
        ("--notruncate", None),
        ("--pad_value=0", mgpu.Pad()),
        ("--pad_value=-1.5 --pad_side=left", mgpu.Pad(-1.5, side="left")),
        ("--pad_value=", mgpu.Pad("")),
        ("--pad_value=ids=1,mask=0", mgpu.Pad({"ids": 1, "mask": 0})),
        ("--max_tokens=512 --unmasked", mgpu.Pad(max_tokens=512, unmasked=True)),
        (
            "--pad_lengths=64,8 --truncate",
            mgpu.Pad(lengths=[8, 64], truncate=True),
        ),
    ],
)
def test_each_flag_turns_padding_on(words, pad):
    flag_values = flags.FlagValues()
    run.define_flags(flag_values)
    rest = flag_values(
        ["predict", "m.keras", "x.npy", "--output=o.npy", *words.split()]
    )
    assert run.run_of(rest[1:], flag_values).running.get("pad") == pad


@pytest.mark.parametrize(
    ("flag", "message"),
    [
        ("--pad_value=ids=1,0", "--pad_value=ids=1,0. Expected one value, or NAME="),
        ("--pad_lengths=64,x", "--pad_lengths=64,x. Expected integers of at least 1"),
        ("--pad_lengths=0", "--pad_lengths=0. Expected integers of at least 1, such"),
        ("--pad_lengths=", "--pad_lengths=. Expected integers of at least 1, such"),
        ("--pad_side=top", "--pad_side=top. Expected one of right, left."),
        ("--max_tokens=0", "--max_tokens=0. Expected an integer of 1 or more."),
    ],
)
def test_flags_that_cannot_be_read(flag, message, tmp_path, capsys):
    with pytest.raises(SystemExit, match="2"):
        predict_here(DIGITS, IMAGES, f"--output={tmp_path}/o.npy", flag)
    printed = capsys.readouterr()
    assert message in printed.err and printed.err.count("\n") == 1
    assert not printed.out


@pytest.fixture(scope="module")
def texts(tmp_path_factory):
    """A folder with a classifier, a tagger, a model without masks, and lists of ids."""
    folder = tmp_path_factory.mktemp("texts")
    for name, mask_zero, per_token in (
        ("row.keras", True, False),
        ("tagger.keras", True, True),
        ("plain.keras", False, False),
    ):
        lstm = keras.layers.LSTM(4, return_sequences=per_token)
        embedded = keras.layers.Embedding(20, 4, mask_zero=mask_zero)
        last = keras.layers.Dense(3, activation="softmax")
        inputs = keras.Input((None,), dtype="int32", name="ids")
        keras.Model(inputs, last(lstm(embedded(inputs)))).save(folder / name)
    random = np.random.default_rng(0)
    ids = [random.integers(1, 20, n).astype(np.int32) for n in (5, 1, 12, 3, 1, 7) * 4]
    table = pa.table({"key": range(100, 100 + len(ids)), "ids": ids})
    parquet.write_table(table, folder / "rows.parquet")
    return folder, ids


def alone(model, ids):
    """What a model gives for each row alone."""
    loaded = keras.models.load_model(model)
    return [loaded(row[None])[0].numpy() for row in ids]


def test_lists_in_and_lists_out(texts, tmp_path):
    folder, ids = texts
    result = run_mgpu(
        *("predict", folder / "tagger.keras", folder / "rows.parquet"),
        *(f"--output={tmp_path}/tags.parquet", "--keep=key", "--max_tokens=24"),
        *("--verbose=0", "--devices=cpu", "--replicas_per_device=2"),
    )
    assert result.returncode == 0, result.stderr
    assert "padding" in result.stdout
    table = parquet.read_table(tmp_path / "tags.parquet").to_pydict()
    assert table["key"] == list(range(100, 100 + len(ids)))
    for mine, expected in zip(
        table["output"], alone(folder / "tagger.keras", ids), strict=True
    ):
        np.testing.assert_allclose(mine, expected, 1e-5, 1e-6)


def test_rows_are_those_of_each_row_alone(texts, tmp_path, capsys):
    folder, ids = texts
    same = (folder / "row.keras", folder / "rows.parquet", "--verbose=0")
    predict_here(*same, f"--output={tmp_path}/o.npy", "--pad_value=0")
    expected = alone(folder / "row.keras", ids)
    np.testing.assert_allclose(np.load(tmp_path / "o.npy"), expected, 1e-5, 1e-6)
    flags = ("--pad_lengths=8", "--pad_side=left", "--truncate")
    predict_here(*same, f"--output={tmp_path}/c.npy", *flags)
    cut = alone(folder / "row.keras", [row[-8:] for row in ids])
    np.testing.assert_allclose(np.load(tmp_path / "c.npy"), cut, 1e-5, 1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ("row.keras --output=o.npy", "pass --pad_value=0"),
        ("row.keras --pad_lengths=4 --output=o.npy", "--truncate"),
        ("row.keras --pad_value=0 --max_tokens=3 --output=o.npy", "--max_tokens=3"),
        ("plain.keras --pad_value=0 --output=o.npy", "--unmasked"),
        ("tagger.keras --pad_value=0 --output=o.npy", ".parquet"),
    ],
)
def test_what_cannot_be_padded(words, message, texts, tmp_path, capsys, monkeypatch):
    folder, _ = texts
    monkeypatch.chdir(tmp_path)
    model, *flags = words.split()
    with pytest.raises(SystemExit, match="2"):
        predict_here(folder / model, folder / "rows.parquet", *flags)
    printed = capsys.readouterr().err
    assert message in printed and printed.count("\n") == 1
    assert not list(tmp_path.iterdir())
