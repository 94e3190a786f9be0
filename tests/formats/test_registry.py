"""The list of formats: complete, true to what it names, and enough to add one."""

import numpy as np
import pytest
from command_line import DIGITS, IMAGES, mgpu_here, predict_here

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.formats import registry
from keras_mgpu_strategy.formats.file_source import FileInput
from keras_mgpu_strategy.outputs.columns import columns_of
from keras_mgpu_strategy.outputs.interface import Layout
from tests.formats import toy
from tests.formats.reading_files import check_rows


@pytest.mark.parametrize("row", registry.FORMATS, ids=lambda row: row.name)
def test_what_a_row_names_exists(row):
    assert registry._named(row.reader) is getattr(mgpu.files, row.name)
    assert bool(row.suffix) == bool(row.writer) == bool(row.shards)
    if row.suffix:
        assert row.is_of(f"results{row.suffix.upper()}")
        assert callable(row.shards_module().check)
        assert callable(registry.writer_of(f"results{row.suffix}").create)


def test_the_rows_are_those_of_mgpu_files():
    names = {row.name for row in registry.FORMATS}
    assert names | {"FileInput"} == set(mgpu.files.__all__)


@pytest.fixture
def added(monkeypatch):
    """A format that exists only in the list."""
    monkeypatch.setattr(registry, "FORMATS", [*registry.FORMATS, toy.ROW])


def test_a_format_needs_only_a_row_in_the_list(added, tmp_path):
    images = np.load(IMAGES)[:50]
    with mgpu.scope("cpu:0"):
        model = mgpu.load(DIGITS)
    whole, parts = tmp_path / "whole.toy", tmp_path / "parts.toy"
    model.predict_to(whole, images, 32, verbose=0)
    expected = model.predict_proba(images, 32, verbose=0)
    source = toy.Toy(whole).open_rows(None)
    assert isinstance(toy.Toy(whole), FileInput)
    check_rows(source, expected, [(7, 0), (16, 3), (64, 49)])
    for shard in (0, 1, 2):
        model.predict_to(parts, images, 32, verbose=0, shard=(shard, 3))
    mgpu_here("merge", parts)
    assert parts.read_bytes() == whole.read_bytes()


def test_the_command_line_knows_it_too(added, tmp_path):
    rows, output = tmp_path / "rows.toy", tmp_path / "o.toy"
    images = np.load(IMAGES)[:20]
    with mgpu.scope("cpu:0"):
        model = mgpu.load(DIGITS)
    model.predict_to(output, images, 32, verbose=0)
    layout = Layout(columns_of(images), 0, len(images), len(images))
    lines = toy.ToyFormat().create(rows, layout)
    lines.write(mgpu.HostBatch(0, images))
    lines.finish()
    predict_here(DIGITS, rows, f"--output={tmp_path / 'again.toy'}", "--batch_size=32")
    assert (tmp_path / "again.toy").read_bytes() == output.read_bytes()
