"""Rows of unequal length in several processes, to which padded rows are sent."""

import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests.runs.test_padded_runs import ROWS, masked_mean

pytestmark = pytest.mark.slow


def test_padded_rows_in_two_processes(cluster, strategies, tmp_path):
    model = masked_mean()
    path = tmp_path / "model.keras"
    model.save(path)
    remote = mgpu.load(path, engine="ray", ray=mgpu.RayOptions(num_actors=2))
    with strategies[2].scope():
        local = mgpu.Predictor(model)
    for pad, batch_size in (
        (mgpu.Pad(max_tokens=90, window=64), None),
        (mgpu.Pad(), 6),
    ):
        found = remote.predict(ROWS, batch_size, verbose=0, pad=pad)
        expected = local.predict(ROWS, batch_size, verbose=0, pad=pad)
        np.testing.assert_array_equal(found, expected)
        assert remote.report.padding == local.report.padding
        assert remote.report.lengths == local.report.lengths
