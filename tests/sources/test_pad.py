"""What mgpu.Pad accepts, and how it refuses the rest."""

import json

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests import helpers


def test_lengths_are_sorted_and_unique():
    assert mgpu.Pad(lengths=[16, 4, np.int64(16)]).lengths == (4, 16)
    assert mgpu.Pad(lengths=np.array([16, 4])).lengths == (4, 16)
    assert mgpu.Pad().lengths == "auto"


def test_settings_are_json_even_with_numpy_integers():
    pad = mgpu.Pad(window=np.int64(16), max_tokens=np.int32(64))
    assert json.loads(json.dumps(pad.settings)) == pad.settings
    assert pad.settings == mgpu.Pad(window=16, max_tokens=64).settings


@pytest.mark.parametrize(
    ("options", "error", "message"),
    [
        ({"value": None}, TypeError, "value=None of type NoneType. Expected a number"),
        ({"value": {"a": [0]}}, TypeError, "of type list. Expected a number, a str"),
        ({"lengths": "some"}, TypeError, 'of type str. Expected "auto" or a list'),
        ({"lengths": 8}, TypeError, 'lengths=8 of type int. Expected "auto" or'),
        ({"lengths": []}, ValueError, "is empty. Expected"),
        ({"lengths": [0]}, ValueError, r"lengths=\[0\] holds 0. Expected"),
        ({"lengths": [1.5]}, TypeError, "holds 1.5 of type float"),
        ({"side": "top"}, ValueError, "side='top'. Expected 'right' or 'left'"),
        ({"max_tokens": 0}, ValueError, "max_tokens=0. Expected an integer of at"),
        ({"window": 2.5}, TypeError, "window=2.5 of type float. Expected an integer"),
        ({"truncate": 1}, TypeError, "truncate=1. Expected True or False"),
    ],
)
def test_wrong_values_are_refused(options, error, message):
    with pytest.raises(error, match=message):
        mgpu.Pad(**options)


@pytest.mark.parametrize("pad", [True, 0, mgpu.Pad])
def test_what_is_not_a_pad_is_refused(pad, strategies):
    with strategies[1].scope():
        predictor = mgpu.Predictor(helpers.dense_model())
    with pytest.raises(TypeError, match=r"of type \w+. Expected mgpu.Pad\(\), or None"):
        predictor.predict(helpers.numbered_rows(3), pad=pad)
