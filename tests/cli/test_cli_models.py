"""Several models on one command line."""

import shutil

import keras
import numpy as np
import pytest
from command_line import predict_here

from tests import views

ROWS = np.random.default_rng(2).random((20, 3), np.float32)


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """The working folder, which holds three models and rows."""
    monkeypatch.chdir(tmp_path)
    np.save("rows.npy", ROWS)
    for name in ("m2", "m10", "other"):
        layer = keras.layers.Dense(2, activation="softmax")
        keras.Sequential([keras.Input((3,)), layer]).save(f"{name}.keras")
    return tmp_path


def results_of(*names):
    models = [keras.models.load_model(f"{name}.keras") for name in names]
    return np.stack([model.predict(ROWS, verbose=0) for model in models], 1)


@pytest.mark.parametrize(
    ("given", "names"),
    [
        ("m2.keras,other.keras", ["m2", "other"]),
        ("m2.keras, other.keras", ["m2", "other"]),
        ("m*.keras", ["m10", "m2"]),
        ("other.keras,m[0-9].keras", ["other", "m2"]),
    ],
)
def test_models_by_name_and_by_pattern(given, names, folder, capsys):
    flags = ("--output=stacked.npy", "--combine=stack", "--devices=cpu")
    predict_here(given, "rows.npy", *flags)
    found = np.load("stacked.npy")
    np.testing.assert_allclose(found, results_of(*names), rtol=1e-5, atol=1e-6)
    listed = ", ".join(f"{name}.keras" for name in names)
    assert f"models    {listed}\n" in capsys.readouterr().out


def test_the_mean_is_what_is_written_by_default(folder):
    predict_here("m2.keras,other.keras", "rows.npy", "--output=mean.npy")
    expected = results_of("m2", "other").mean(1)
    np.testing.assert_allclose(np.load("mean.npy"), expected, rtol=1e-5, atol=1e-6)


def test_a_file_whose_name_looks_like_several_is_one(folder):
    shutil.copy("m2.keras", "a,b*.keras")
    predict_here("a,b*.keras", "rows.npy", "--output=out.npy")
    expected = results_of("m2")[:, 0]
    np.testing.assert_allclose(np.load("out.npy"), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["m2.keras,n.keras", "rows.npy"], "There is no model n.keras. Check the path"),
        (["n*.keras", "rows.npy"], "No model matches 'n*.keras'. Check"),
        (["m2.keras,n*", "rows.npy"], "No model matches 'n*'. Check"),
        (
            ["m2.keras,", "rows.npy"],
            "A name is missing in the models 'm2.keras,'.",
        ),
        (
            ["m2.keras", "m10.keras", "rows.npy"],
            'Name several models as a.keras,b.keras or in quotes as "m*.keras".\n',
        ),
        (
            ["m2.keras", "rows.npy", "--combine=vote"],
            "--combine=vote with one model, m2.keras. Give several, such as",
        ),
        (
            ["m*.keras", "rows.npy", "--output=m2.keras/out.npy"],
            "--output=m2.keras/out.npy is, or is inside, m2.keras, which is read.",
        ),
    ],
)
def test_bad_models(words, message, folder, capsys, monkeypatch):
    # Before TensorFlow loads, so no model is read.
    monkeypatch.delattr("keras_mgpu_strategy.cli.predict._load")
    with pytest.raises(SystemExit) as ended:
        predict_here("--output=out.npy", *words)
    assert ended.value.code == 2
    assert message in capsys.readouterr().err


@pytest.mark.parametrize(
    ("combine", "message"),
    [
        (
            "median",
            "--combine=median. Expected one of mean, gmean, vote, stack, mean_s",
        ),
        (
            "vote",
            "--method=predict_proba is not defined for --combine=vote. Use "
            "--method=predict or predict_classes, or --combine=mean.\n",
        ),
    ],
)
def test_bad_combinations(combine, message, folder, capsys):
    with pytest.raises(SystemExit):
        flags = ("--output=out.npy", f"--combine={combine}")
        predict_here("m*.keras", "rows.npy", *flags)
    assert message in capsys.readouterr().err


def test_views_of_images(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    rows = np.random.default_rng(2).random((20, 4, 4, 1), np.float32)
    np.save("rows.npy", rows)
    model = keras.Sequential([keras.Input((4, 4, 1)), keras.layers.Flatten()])
    model.add(keras.layers.Dense(2, activation="softmax"))
    model.save("m.keras")
    names = ["identity", "flip_left_right"]
    each = np.stack(views.predictions(model, rows, names), axis=1)
    flags = ("--output=out.npy", f"--views={','.join(names)}")
    predict_here("m.keras", "rows.npy", *flags, "--combine=stack")
    np.testing.assert_allclose(np.load("out.npy"), each, rtol=1e-5, atol=1e-6)
    predict_here("m.keras", "rows.npy", *flags, "--overwrite")
    np.testing.assert_allclose(np.load("out.npy"), each.mean(1), rtol=1e-5, atol=1e-6)
    with pytest.raises(SystemExit):
        predict_here("m.keras", "rows.npy", "--output=no.npy", "--views=flip_leftright")
    error = capsys.readouterr().err
    assert "--views has 'flip_leftright'. Did you mean 'flip_left_right'?" in error
    assert "Expected names among identity, flip_left_right, flip_up_down," in error
