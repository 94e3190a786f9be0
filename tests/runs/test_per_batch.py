"""`predict_batches`: one result per batch, whatever its size."""

import itertools
import time

import keras
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import keras_mgpu_strategy as mgpu
from tests import helpers


@pytest.fixture(scope="module", params=["threads", "mirrored"])
def predictor(request, strategies):
    with strategies[2].scope():
        return mgpu.Predictor(helpers.doubling_model(), engine=request.param)


def assert_doubled(results, batches):
    for result, batch in itertools.zip_longest(results, batches):
        assert result.shape == batch.shape
        np.testing.assert_array_equal(result, 2 * batch + 1)


@settings(max_examples=15, deadline=None)
@given(st.lists(st.integers(0, 5) | st.sampled_from([31, 33, 700]), max_size=8))
def test_a_result_has_the_rows_of_its_batch(predictor, sizes):
    rows = helpers.numbered_rows(sum(sizes))
    batches = helpers.in_batches(rows, sizes) if sizes else []
    assert_doubled(predictor.predict_batches(batches), batches)


@pytest.mark.parametrize("kind", [list, tuple, iter], ids=lambda kind: kind.__name__)
def test_lists_and_generators(predictor, kind):
    assert list(predictor.predict_batches(kind([]))) == []
    for sizes in ([0], [0, 0, 2, 0, 5, 0, 0], [1000, 1, 999, 0, 64], [1] * 100):
        batches = helpers.in_batches(helpers.numbered_rows(sum(sizes)), sizes)
        assert_doubled(predictor.predict_batches(kind(batches)), batches)


def test_x_is_the_first_of_a_tuple(predictor):
    rows = helpers.numbered_rows(3)
    batches = [(rows,), (rows, np.zeros(3)), (rows, np.zeros(3), np.ones(3))]
    assert_doubled(predictor.predict_batches(batches), [rows] * 3)


def test_nests_of_inputs_and_outputs(strategies):
    left, right = keras.Input((2,), name="left"), keras.Input((2,), name="right")
    total = keras.layers.Add()([left, right])
    model = keras.Model({"left": left, "right": right}, {"total": total, "left": left})
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    batches = [
        {"left": np.full((n, 2), n, "f4"), "right": np.ones((n, 2), "f4")}
        for n in (2, 0, 3)
    ]
    results = list(predictor.predict_batches(batches))
    assert [result["total"].tolist() for result in results] == [
        [[3, 3]] * 2,
        [],
        [[4, 4]] * 3,
    ]
    assert results[1]["left"].shape == (0, 2)


def test_batches_of_rows_of_different_lengths(strategies):
    inputs = keras.Input((None,))
    with strategies[2].scope():
        predictor = mgpu.Predictor(
            keras.Model(inputs, keras.layers.Rescaling(2.0, 1.0)(inputs))
        )
    shapes = [(3, 4), (2, 5), (0, 5), (1, 4), (70, 4), (1, 9)]
    random = np.random.default_rng(0)
    batches = [random.random(shape, dtype=np.float32) for shape in shapes]
    results = list(predictor.predict_batches(batches))
    assert len(results) == len(batches)
    for result, batch in zip(results, batches, strict=True):
        assert len(result) == len(batch)
        if len(batch):
            np.testing.assert_array_equal(result, 2 * batch + 1)


def test_an_endless_generator_is_read_a_bounded_number_of_rows_ahead(predictor):
    # Rows of 64 KiB, since read-ahead is limited in bytes.
    num_columns, batch_rows, most = 16_384, 32, 32
    model = keras.Sequential([keras.Input((num_columns,)), keras.layers.Rescaling(1)])
    with predictor.strategy.scope():
        wide = mgpu.Predictor(model)
    batch = np.ones((batch_rows, num_columns), np.float32)
    read = []

    def endless():
        while True:
            read.append(batch_rows)
            yield batch

    with helpers.no_thread_left():
        results = wide.predict_batches(endless())
        for count in range(1, 4):
            assert next(results).shape == batch.shape
            time.sleep(0.1)
            assert len(read) <= count + most
        del results


def test_the_first_batch_is_checked_before_results_are_requested(predictor):
    with pytest.raises(ValueError, match=r"\(None, 2\)|2"):
        predictor.predict_batches([np.ones((3, 5), np.float32)])


def test_only_the_first_batch_is_read_before_results_are_requested(predictor):
    read = []

    def batches():
        for rows in itertools.islice(helpers.numbered_batches(4), 10):
            read.append(len(rows))
            yield rows

    results = predictor.predict_batches(batches())
    assert read == [4]
    assert len(list(results)) == 10


@pytest.mark.parametrize("position", [0, 1])
def test_none_is_not_a_batch(predictor, position):
    batches = [helpers.numbered_rows(2)] * 3
    batches[position] = None
    with pytest.raises(TypeError, match="expected an array"):
        list(predictor.predict_batches(batches))


def test_results_before_an_error_of_the_generator_are_delivered(strategies):
    model = keras.Sequential([keras.Input((2,)), keras.layers.Rescaling(2.0)])
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)

    def failing():
        for value in range(3):
            yield np.full((10, 2), value, np.float32)
        raise KeyError("a bad file")

    results = predictor.predict_batches(failing())
    for value in range(3):
        np.testing.assert_array_equal(next(results), np.full((10, 2), 2.0 * value))
    with pytest.raises(KeyError, match="a bad file"):
        next(results)
