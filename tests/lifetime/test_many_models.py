"""Thirty models in one process: memory grows no more than with Keras alone."""

import json

import pytest

from tests import children
from tests.lifetime import many_models

NUM_MODELS = 30
# Python collects garbage only now and then: ten models may be waiting for it.
MARGIN_MIB = 0.5
CASES = [("by_keras", ["by_drop_in", "by_predictor"]), ("by_keras_load", ["by_load"])]


def left_by(way, folder, *, clears):
    folder = folder / way
    folder.mkdir()
    process = children.start(many_models.run, str(folder), way, clears, NUM_MODELS)
    assert children.end_of(process, timeout=300) == 0
    return json.loads((folder / "found.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(("keras_way", "ways"), CASES)
@pytest.mark.parametrize("clears", [False, True])
def test_many_models_leave_no_more_behind_than_with_keras(
    keras_way, ways, clears, tmp_path
):
    keras_mib = left_by(keras_way, tmp_path, clears=clears)["mib"]
    for way in ways:
        found = left_by(way, tmp_path, clears=clears)
        assert found["alive"] == 0
        assert found["threads"] == 1
        assert found["mib"] <= max(keras_mib, 0) + MARGIN_MIB, f"{way}: {keras_mib}"
