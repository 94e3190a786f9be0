"""Outputs and labels of tokens as arrays whose padding does not count."""

import numpy as np
import pytest

from keras_mgpu_strategy.runs.token_labels import check_padding, is_ragged, padded_block
from keras_mgpu_strategy.types import Ragged

OFFSETS = np.array([1, 3, 3, 6])
OWN = np.array([[1, 1, 0], [0, 0, 0], [1, 1, 1]], bool)


def ragged(dtype, shape=()):
    size = int(np.prod(shape))
    values = np.arange(1, 7 * size + 1).reshape(7, *shape).astype(dtype)
    return Ragged(values, OFFSETS)


def block():
    outputs, mask = {"tags": ragged(np.float32, (2,)), "n": np.ones(3)}, ragged(bool)
    return (outputs, [mask, ()]), ({"tags": ragged(np.int64)}, ragged(np.float32))


def test_padding_is_left_out_by_masks_and_weights():
    for extra, random in ((0, None), (2, np.random.default_rng(0))):
        (outputs, masks), (labels, weights) = padded_block(*block(), extra, random)
        longer = np.pad(OWN, [(0, 0), (0, extra)])
        assert masks[1] == () and outputs["n"].shape == (3,)
        np.testing.assert_array_equal(masks[0], longer)
        assert (weights[~longer] == 0).all() and (labels["tags"][~longer] > 0).all()
        np.testing.assert_array_equal(weights[longer], [2, 3, 4, 5, 6])
        np.testing.assert_array_equal(labels["tags"][longer], [2, 3, 4, 5, 6])
        np.testing.assert_array_equal(outputs["tags"][2, :, 0][:3], [7, 9, 11])
    assert is_ragged(block()) and not is_ragged(padded_block(*block()))


def test_rows_without_any_token_are_padded_with_zeros():
    empty = Ragged(np.zeros((0, 2), np.float32), np.zeros(4, int))
    (outputs, _), _ = padded_block((empty, []), ())
    assert outputs.shape == (3, 0, 2)


def test_labels_need_one_for_each_token():
    (outputs, masks), (labels, weights) = block()
    weights = Ragged(weights.values, OFFSETS - [0, 0, 0, 1])
    message = "outputs of a row have 3 tokens, and its labels or weights 2"
    with pytest.raises(ValueError, match=message):
        padded_block((outputs, masks), (labels, weights))


def test_values_that_change_with_padding_are_named():
    def logs(data, size):
        (outputs, _), (_, weights) = data
        mean = float((outputs["tags"][..., 0] * weights).sum())
        return {"weighted": mean, "length": weights.shape[1], "size": size}

    with pytest.raises(ValueError, match=r"^length would count padding, since outputs"):
        check_padding(block(), logs)
    check_padding(block(), lambda data, size: {"loss": float("nan"), "size": size})
