"""Views by name and by functions of the user's own, against NumPy's."""

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.models.turns import turned
from keras_mgpu_strategy.models.views import check_views
from tests.views import TURNS


@pytest.mark.parametrize("name", TURNS)
def test_named_views_move_pixels_and_bring_them_back(name):
    forward, inverse = TURNS[name]
    random = np.random.default_rng(0)
    for dtype in ("uint8", "int16", "int64", "bool", "float16", "float32", "float64"):
        images = (100 * random.random((3, 6, 6, 2))).astype(dtype)
        new, back = turned(name, tf.constant(images))
        np.testing.assert_array_equal(new, forward(images))
        maps = (100 * random.random((3, 3, 3, 4))).astype(dtype)
        np.testing.assert_array_equal(back(tf.constant(maps)), inverse(maps))
        np.testing.assert_array_equal(back(new), images)


@pytest.mark.parametrize(
    ("views", "error", "message"),
    [
        ([], ValueError, r"views=\[\] names nothing. Expected a list of names"),
        ("rot90", TypeError, "views='rot90' of type str. Expected a list of names"),
        (["rot90", 3], TypeError, r"views=\['rot90', 3\] of type list. Expected a"),
        (["flip_leftright"], ValueError, "Did you mean 'flip_left_right'?"),
        (["mirror"], ValueError, r"views has 'mirror'. Expected .*rot270\) or mgpu.V"),
        (["rot90", "rot90"], ValueError, "'rot90' twice. Expected each view once."),
    ],
)
def test_values_that_are_no_views_are_refused(views, error, message):
    with pytest.raises(error, match=message):
        check_views(views)


def test_views_of_ones_own_are_functions():
    assert repr(mgpu.View(len, np.abs)) == "View(len, absolute)"
    with pytest.raises(TypeError, match="mgpu.View received forward='rot90' of type s"):
        mgpu.View("rot90")
    with pytest.raises(TypeError, match="mgpu.View received inverse=3 of type int. Ex"):
        mgpu.View(len, 3)
