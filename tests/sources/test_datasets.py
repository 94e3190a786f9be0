"""tf.data: specs without reading, elements, options, what is refused."""

import math

import numpy as np
import pytest
import tensorflow as tf
from reading import read, rows, sizes

from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.sources.datasets import without_autotune

X = np.arange(22, dtype=np.float32).reshape(11, 2)


def _dataset(batch_size=4, **kwargs):
    return tf.data.Dataset.from_tensor_slices(X).batch(batch_size, **kwargs)


@pytest.mark.parametrize("user_batch", [1, 4, 20])
def test_rows(user_batch):
    source = as_source(_dataset(user_batch))
    assert source.num_rows is None
    for batch_size in (1, 4, 16):
        np.testing.assert_array_equal(rows(source, batch_size), X)
        np.testing.assert_array_equal(rows(source, batch_size, start=5), X[5:])


def test_the_spec_is_known_without_reading():
    def fail(x):
        tf.debugging.Assert(False, ["read"])
        return tf.cast(x, tf.float64)

    source = as_source(_dataset(5, drop_remainder=True).map(fail))
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    with pytest.raises(tf.errors.InvalidArgumentError, match="read"):
        next(source.batches(4))


@pytest.mark.parametrize(
    "element", [lambda x: (x, x), lambda x: (x, x, x), lambda x: ((x),)]
)
def test_targets_and_weights_are_left_out(element):
    np.testing.assert_array_equal(rows(as_source(_dataset().map(element))), X)


def test_dicts_of_several_dtypes():
    dataset = _dataset().map(
        lambda x: ({"t": tf.strings.as_string(x), "h": tf.cast(x, tf.float16)}, x)
    )
    source = as_source(dataset)
    assert source.spec == {
        "t": tf.TensorSpec([None, 2], tf.string),
        "h": tf.TensorSpec([None, 2], tf.float32),
    }
    first = read(source, 6)[0]
    assert first.inputs["t"].dtype == object
    assert first.inputs["t"][5, 1] == b"11.000000"
    np.testing.assert_array_equal(first.inputs["h"], X[:6])


def _aligned(shape):
    """An array in memory that TensorFlow uses without a copy."""
    raw = np.zeros(4 * math.prod(shape) + 64, np.uint8)
    offset = -raw.ctypes.data % 64
    return raw[offset : offset + 4 * math.prod(shape)].view(np.float32).reshape(shape)


def _by_numpy_function(fill):
    indices = tf.data.Dataset.range(6)
    return indices.map(lambda i: tf.numpy_function(fill, [i], tf.float32))


def _by_generator(fill):
    return tf.data.Dataset.from_generator(
        lambda: map(fill, range(6)),
        output_signature=tf.TensorSpec([None, 1], tf.float32),
    )


@pytest.mark.parametrize("make", [_by_numpy_function, _by_generator])
def test_a_function_that_fills_one_array_again_and_again(make):
    buffer = _aligned((8, 1))

    def fill(index):
        buffer[:, 0] = np.arange(8 * index, 8 * index + 8)
        return buffer

    held = [np.asarray(tensor) for tensor in make(fill)]
    assert np.shares_memory(held[0], buffer), "TensorFlow copies: this tests nothing"
    for batch_size in (3, 8, 12):
        found = rows(as_source(make(fill)), batch_size)
        np.testing.assert_array_equal(found[:, 0], np.arange(48))


def test_axes_that_vary():
    lengths = tf.data.Dataset.from_tensor_slices([1, 2, 2, 3, 3, 3])
    dataset = lengths.map(lambda n: tf.ones([n])).padded_batch(2)
    source = as_source(dataset)
    assert source.spec == tf.TensorSpec([None, None], tf.float32)
    shapes = [batch.inputs.shape for batch in read(source, 3)]
    assert shapes == [(2, 2), (3, 3), (1, 3)]


def test_an_unknown_number_of_axes_is_read_from_the_first_batch():
    dataset = tf.data.Dataset.from_generator(lambda: iter([X]), tf.float32)
    source = as_source(dataset)
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    np.testing.assert_array_equal(rows(source), X)


def test_an_empty_dataset_has_a_spec():
    source = as_source(_dataset().take(0))
    assert source.spec == tf.TensorSpec([None, 2], tf.float32)
    assert read(source, 4) == []


def test_steps():
    assert sizes(as_source(_dataset(3).repeat(), steps=4), 8) == [8, 3]
    assert sizes(as_source(_dataset(3), steps=2), 8) == [6]
    message = "ran out of data: steps=9 batches were asked for, but it has 3"
    with pytest.warns(UserWarning, match=message):
        assert sizes(as_source(_dataset(4), steps=9), 8) == [8, 3]


def test_an_endless_dataset():
    with pytest.raises(ValueError, match="Dataset that never ends, expected steps="):
        as_source(_dataset().repeat())


def test_an_unbatched_dataset():
    dataset = tf.data.Dataset.range(5)
    message = r"x of the tf.data.Dataset has shape \(\).*dataset.batch\(...\)"
    with pytest.raises(ValueError, match=message):
        as_source(dataset)


@pytest.mark.parametrize(
    ("convert", "remedy"),
    [
        (tf.RaggedTensor.from_tensor, r"RaggedTensorSpec.*x.to_tensor\(\)"),
        (lambda x: tf.data.Dataset.from_tensors(x), r"DatasetSpec.*dataset.map\("),
    ],
)
def test_elements_that_are_not_tensors_of_one_shape(convert, remedy):
    dataset = _dataset().map(lambda x: {"a": convert(x)})
    with pytest.raises(
        TypeError, match=r"^x\['a'\] of the tf.data.Dataset is a " + remedy
    ):
        as_source(dataset)


def test_four_items():
    dataset = _dataset().map(lambda x: (x, x, x, x))
    with pytest.raises(ValueError, match="received a tuple of 4 items"):
        as_source(dataset)


def test_the_autotuner_is_off_and_other_options_stay():
    options = tf.data.Options()
    options.deterministic = True
    options.threading.private_threadpool_size = 3
    dataset = without_autotune(_dataset().with_options(options))
    assert dataset.options().autotune.enabled is False
    assert dataset.options().deterministic is True
    assert dataset.options().threading.private_threadpool_size == 3
