import warnings

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.runs.result_checks import probabilities
from keras_mgpu_strategy.types import HostBatch
from tests import helpers

FLOATS = ["float16", "bfloat16", "float32", "float64"]


def batch(values, start=0, dtype="float32"):
    array = np.array(values, "float32").astype(tf.as_dtype(dtype).as_numpy_dtype)
    return HostBatch(start, array)


@pytest.mark.parametrize("dtype", [*FLOATS, "int32", "uint8", "bool"])
def test_probabilities_pass_without_a_warning(dtype):
    batches = [batch([[0, 1], [1, 0]], dtype=dtype), batch([[1, 1]], 2, dtype)]
    assert list(probabilities(batches, strict=True)) == batches
    assert list(probabilities(batches, strict=False)) == batches


def test_batches_pass_on_one_by_one():
    first, second = batch([[0.5]]), batch([[2.0]], 1)
    arriving = iter([first, second])
    assert next(probabilities(arriving, strict=True)) is first
    assert next(arriving) is second


@pytest.mark.parametrize("strict", [True, False])
def test_no_rows(strict):
    empty = HostBatch(0, np.zeros((0, 3), np.float32))
    assert list(probabilities([empty], strict=strict)) == [empty]


def test_one_warning_names_the_worst_value_and_its_row():
    batches = [
        batch([[0.1, 1.5], [0.2, 0.3]]),
        batch([[0.5, 0.5], [-2.5, 0.0], [3.0, 0.0]], 2),
        batch([[3.4, 0.0]], 5),
    ]
    with pytest.warns(UserWarning) as caught:
        assert list(probabilities(batches, strict=False)) == batches
    assert len(caught) == 1
    message = str(caught[0].message)
    assert "Invalid probability values: -2.5 in row 3 is the worst" in message
    assert "from_logits=True" in message


@pytest.mark.parametrize("dtype", FLOATS)
def test_every_kind_of_bad_value(dtype):
    for value in (1.5, -0.5, np.nan, np.inf, -np.inf):
        bad = batch([[0.5], [value], [0.25]], 10, dtype)
        message = f"values: {value} in row 11 is the worst"
        with pytest.raises(ValueError, match=message):
            list(probabilities([bad], strict=True))
        with pytest.warns(UserWarning, match=message):
            list(probabilities([bad], strict=False))
    # NaN is worse than any number.
    bad = batch([[-900.0], [np.nan], [900.0]], dtype=dtype)
    with pytest.raises(ValueError, match="nan in row 1 "):
        list(probabilities([bad], strict=True))


@pytest.mark.parametrize(("dtype", "value"), [("int32", -3), ("uint8", 200)])
def test_integers(dtype, value):
    bad = HostBatch(0, np.array([[0], [value], [1]], dtype))
    with pytest.raises(ValueError, match=f"{value} in row 1 "):
        list(probabilities([bad], strict=True))


def test_the_row_is_found_if_there_are_further_axes():
    values = np.zeros((4, 2, 3), np.float32)
    values[2, 1, 0] = 7
    with pytest.raises(ValueError, match="7 in row 22 "):
        list(probabilities([HostBatch(20, values)], strict=True))


def test_every_output_is_checked():
    outputs = {"good": np.zeros((2, 2)), "bad": [np.array([0.0, 4.0])]}
    with pytest.raises(ValueError, match="4 in row 1 "):
        list(probabilities([HostBatch(0, outputs)], strict=True))


def test_strict_raises_before_the_bad_batch_and_after_the_good_ones():
    rows = np.array([[0.1], [0.2], [9.0], [0.3]])
    passed = []
    with pytest.raises(ValueError, match="9 in row 2 "):
        for good in probabilities(
            helpers.host_batches(rows, [1, 1, 1, 1]), strict=True
        ):
            passed.append(good.start)
    assert passed == [0, 1]


def test_what_is_not_a_number_is_refused():
    text = HostBatch(0, np.array([b"yes"], object))
    with pytest.raises(TypeError, match=r"outputs of dtype object.*Call predict\(\)"):
        list(probabilities([text], strict=False))


def test_values_just_inside_the_bounds_are_good():
    edges = np.array([[0.0, 1.0, -0.0, np.nextafter(1.0, 0.0)]])
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        list(probabilities([HostBatch(0, edges)], strict=False))
