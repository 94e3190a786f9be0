"""Results whose rows differ in length, on their way to users."""

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute import gather
from keras_mgpu_strategy.outputs.memory import collected
from keras_mgpu_strategy.runs.result_checks import NonFiniteRows, probabilities
from keras_mgpu_strategy.sources.marks import masked
from keras_mgpu_strategy.types import HostBatch, Ragged, RowMarks

LENGTHS = [2, 0, 3, 1, 4]


def batch(start, values=None, **marks):
    """Rows `start` to `start + 5`: tags for each token, and a score."""
    offsets = 1 + np.concatenate([[0], np.cumsum(LENGTHS)])
    if values is None:
        values = np.linspace(0, 1, 24, dtype=np.float32).reshape(12, 2) + start
    outputs = {"tags": Ragged(values, offsets), "score": np.ones(5) / 2}
    return HostBatch(start, outputs, RowMarks(**marks))


def listed(outputs):
    tags = outputs["tags"]
    return (tags.to_tensor() if isinstance(tags, Ragged) else tags).to_list()


@pytest.mark.parametrize("num_rows", [10, None])
def test_all_rows_become_one_ragged_tensor(num_rows):
    def parts():
        for part in (batch(0), batch(5)):
            yield part
            part.outputs["tags"].values[:] = -1  # the caller's memory

    result = collected(parts(), num_rows)
    assert isinstance(result["tags"], tf.RaggedTensor)
    assert result["tags"].shape.as_list() == [10, None, 2]
    assert listed(result) == listed(batch(0).outputs) + listed(batch(5).outputs)
    assert result["score"].shape == (10,)


def test_batches_are_cut_at_other_rows():
    sizes = iter([3, 4, 0, 3])
    parts = list(gather.resplit([batch(0), batch(5)], lambda: next(sizes, None)))
    assert [(part.start, part.num_rows) for part in parts] == [
        (0, 3),
        (3, 4),
        (7, 0),
        (7, 3),
    ]
    found = [row for part in parts for row in listed(part.outputs)]
    assert found == listed(batch(0).outputs) + listed(batch(5).outputs)
    assert "'tags': (3, None, 2) float32" in repr(parts[0])


def test_checks_name_rows_not_tokens():
    values = np.full((12, 2), 0.5, np.float32)
    values[[1 + 5, 1 + 8], 1] = [np.nan, 7]  # tokens 5 and 8: rows 3 and 4
    bad = batch(5, values)
    with pytest.raises(ValueError, match="NaN or infinite in 1 rows: 8"):
        list(NonFiniteRows("raise").watching([bad]))
    values[1 + 5, 1] = 0
    with pytest.raises(ValueError, match="7 in row 9 is the worst"):
        list(probabilities([bad], strict=True))


def test_values_outside_of_the_rows_do_not_count():
    values = np.full((12, 2), 0.5, np.float32)
    values[[0, -1]] = np.nan
    list(NonFiniteRows("raise").watching([batch(0, values)]))
    list(probabilities([batch(0, values)], strict=True))


def test_tokens_of_rows_that_could_not_be_read_are_nan():
    missing = np.array([False, True, True, False, False])
    (found,) = masked([batch(0, missing=missing)])
    is_nan = [np.isnan(np.array(row)).all() for row in listed(found.outputs)]
    assert is_nan == [False, True, True, False, False]
    assert np.isnan(found.outputs["score"]).tolist() == missing.tolist()
