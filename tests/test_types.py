"""The `repr` of batches of results."""

import numpy as np

from keras_mgpu_strategy.types import HostBatch, RowMarks


def test_a_batch_says_rows_shapes_and_marks():
    scores = np.zeros((512, 10), np.float32)
    assert repr(HostBatch(0, scores)) == "HostBatch(rows 0 to 512: (512, 10) float32)"
    nest = {"b": np.zeros(3), "a": [np.zeros((3, 2), np.int8)]}
    marks = RowMarks(names=["x", "y", "z"], missing=np.array([True, False, False]))
    assert str(HostBatch(5, nest, marks)) == (
        "HostBatch(rows 5 to 8: {'b': (3,) float64, 'a': [(3, 2) int8]}; "
        "marks: names, missing)"
    )
