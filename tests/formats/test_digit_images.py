"""The script that makes a folder of digits, and the trained model on its images."""

import pathlib
import runpy
import sys

import keras
import numpy as np
import pytest
from image_cases import missing_rows, read_all, takes

from keras_mgpu_strategy.formats.images.input import Images

EXAMPLES = pathlib.Path(__file__).parents[2] / "docs/examples"
NUM_IMAGES, NUM_DAMAGED = 2000, 7


def run(monkeypatch, *args):
    script = EXAMPLES / "make_digit_images.py"
    monkeypatch.setattr(sys, "argv", [str(script), *map(str, args)])
    runpy.run_path(str(script), run_name="__main__")


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    folder = tmp_path_factory.mktemp("digits") / "photos"
    with pytest.MonkeyPatch.context() as monkeypatch:
        run(monkeypatch, folder, f"--damaged={NUM_DAMAGED}")
    return folder


def test_the_model_reads_them(folder):
    model = keras.models.load_model(EXAMPLES / "digits.keras")
    images = Images(folder, preprocess="unit", on_bad_file="skip")
    source = images.open_rows(takes(8, 8, 1))
    assert source.num_rows == NUM_IMAGES
    rows = read_all(source, batch_size=256)
    classes = model.predict(rows, 256, verbose=0).argmax(axis=1)
    labels = np.array([int(name.split("/")[0]) for name in source.marks(0, 2000).names])
    assert np.mean(classes == labels) > 0.97
    missing = missing_rows(source)
    assert len(missing) == NUM_DAMAGED
    assert not rows[missing].any()


def test_both_kinds_of_files_exist(folder):
    suffixes = [path.suffix for path in folder.rglob("*.*")]
    assert suffixes.count(".png") == suffixes.count(".jpg") == NUM_IMAGES // 2


def test_the_same_arguments_give_the_same_files(tmp_path, monkeypatch, capsys):
    for name in ("a", "b"):
        run(monkeypatch, tmp_path / name, "--count=40", "--damaged=3")
    assert "wrote 40 images to" in capsys.readouterr().out
    contents = [
        {p.relative_to(tmp_path / name): p.read_bytes() for p in files}
        for name in ("a", "b")
        for files in [[p for p in (tmp_path / name).rglob("*.*")]]
    ]
    assert len(contents[0]) == 40
    assert contents[0] == contents[1]


@pytest.mark.parametrize(
    ("args", "message"),
    [
        (["--count=2", "--damaged=3"], "--damaged=3: expected 0 to 2"),
        (["--count=2"], "is not empty: expected a new or empty folder"),
    ],
)
def test_arguments_that_are_refused(args, message, tmp_path, monkeypatch, capsys):
    (tmp_path / "a.txt").touch()
    with pytest.raises(SystemExit):
        run(monkeypatch, tmp_path, *args)
    assert message in capsys.readouterr().err
