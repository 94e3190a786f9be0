"""Models with classes of the user's own, on the command line."""

import keras
import numpy as np
import pytest
from command_line import assert_bad_input, mgpu

MINE = """
import keras

class Scale(keras.layers.Layer):
    def call(self, inputs):
        return 2 * inputs

def thrice(x):
    return 3 * x
"""


@pytest.fixture
def folder(tmp_path):
    """A module, models with its class, its function and a lambda, and rows."""
    (tmp_path / "mine.py").write_text(MINE)
    names: dict = {}
    exec(MINE, names)  # noqa: S102 - as the module will have them
    names["Scale"].__module__ = names["thrice"].__module__ = "mine"
    layers = {
        "scale": names["Scale"](),
        "thrice": keras.layers.Activation(names["thrice"]),
        "lambda": keras.layers.Lambda(lambda x: x + 1),
    }
    for name, layer in layers.items():
        model = keras.Sequential([keras.Input((2,)), layer])
        model.save(tmp_path / f"{name}.keras")
    np.save(tmp_path / "rows.npy", np.ones((3, 2), "float32"))
    return tmp_path


def predict(folder, model, *flags):
    arguments = (f"{model}.keras", "rows.npy", "--output=out.npy", "--method=predict")
    return mgpu("predict", *arguments, "--devices=cpu:0", *flags, cwd=folder)


@pytest.mark.parametrize(
    ("model", "flag", "expected"),
    [
        ("scale", "--custom_objects=mine", 2.0),
        ("thrice", "--custom_objects=mine", 3.0),
        ("lambda", "--nosafe_mode", 2.0),
    ],
)
def test_flags_load_them(model, flag, expected, folder):
    result = predict(folder, model, flag)
    assert result.returncode == 0, result.stderr
    np.testing.assert_array_equal(
        np.load(folder / "out.npy"), np.full((3, 2), expected)
    )


@pytest.mark.parametrize(
    ("model", "advice"),
    [
        ("scale", "--custom_objects=MODULE"),
        ("thrice", "--custom_objects=MODULE"),
        ("lambda", "--nosafe_mode"),
    ],
)
def test_errors_are_one_short_line_with_the_flag(model, advice, folder):
    result = predict(folder, model)
    lines = [line for line in result.stderr.splitlines() if line.startswith("mgpu: ")]
    assert result.returncode == 2
    assert len(lines) == 1
    assert advice in lines[0]
    assert len(lines[0]) < 1500


def test_a_module_that_is_not_there(folder):
    result = predict(folder, "scale", "--custom_objects=missing.module")
    message = (
        "--custom_objects=missing.module: there is no such module. Expected the name"
    )
    assert_bad_input(result, message)
