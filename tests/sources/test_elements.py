"""Batches of a stream that do not fit the model or the first one, and users' errors."""

import numpy as np
import pytest
import tensorflow as tf
from reading import Tracked, read, rows

from keras_mgpu_strategy.inputs import as_source

X = np.arange(20, dtype=np.float32).reshape(10, 2)


def test_errors_of_the_user_pass_through():
    class OwnError(ValueError):
        pass

    def generator():
        yield X
        raise OwnError("from the generator")

    batches = as_source(generator()).batches(10)
    assert next(batches).num_rows == 10
    with pytest.raises(OwnError, match="^from the generator$"):
        next(batches)


@pytest.mark.parametrize(
    ("second", "kind", "message"),
    [
        (
            {"a": X, "c": X},
            ValueError,
            r"received x\['a'\], x\['c'\], expected x\['a'\], x\['b'\] as in batch 0. "
            "Yield the same",
        ),
        ({"a": X}, ValueError, r"received x\['a'\], expected x\['a'\], x\['b'\]"),
        ({"a": X, "b": X[1:]}, ValueError, r"unequal length \(x\['a'\]: 10, x\['b'\]"),
        (
            {"a": X, "b": X.astype(str)},
            ValueError,
            r"x\['b'\], row 10 holds '0.0' \(<U32\), expected float32. Convert it",
        ),
        ({"a": X, "b": X.astype(object)}, ValueError, r"x\['b'\] has dtype=object"),
        (
            {"a": X, "b": None},
            ValueError,
            r"received x\['a'\], expected x\['a'\], x\['b'\] .* an optional input",
        ),
        ((X, X, X, X), ValueError, "received a tuple of 4 items, expected"),
        ("abc", TypeError, "x is str 'abc'"),
    ],
)
def test_a_batch_that_does_not_fit(second, kind, message):
    tracked = Tracked([{"a": X, "b": X}, second])
    batches = as_source(tracked.generator).batches(10)
    assert next(batches).num_rows == 10
    with pytest.raises(kind, match=r"^Batch 1 \(first row 10\): .*" + message):
        next(batches)
    assert tracked.is_closed


A = tf.TensorSpec([None, 2], tf.int32, "a")
B = tf.TensorSpec([None, None], tf.float32, "b")


@pytest.mark.parametrize(
    ("second", "message"),
    [
        (
            {"a": X[:, :1], "b": X},
            r"x\['a'\] \(model input 'a'\): received shape \(None, 1\) and dtype floa"
            r"t32, expected shape \(None, 2\) and dtype int32. Bring the rows into",
        ),
        ({"a": np.stack([X, X], 2), "b": X}, r"x\['a'\] .*received shape \(None, 2, 2"),
        ({"a": X, "b": X[:, None]}, r"x\['b'\] .*received shape \(None, 1, 2"),
        ({"a": X, "b": X.astype(str)}, "dtype string, .*Convert the strings to"),
        ({"a": X, "b": X * 1j}, "dtype complex64, expected .*Pass real numbers"),
        ({"a": X}, r"x lacks the model inputs \['b'\]"),
        ([X], "x has 1 inputs, expected 2"),
        (
            {"a": X + 0.5, "b": X},
            r"x\['a'\], row 10 holds 0.5 \(float32\)",
        ),
        ({"a": X + 2.0**31, "b": X}, r"x\['a'\], row 10 holds 2147483648.0"),
    ],
)
def test_every_batch_is_checked_against_the_model(second, message):
    elements = [({"a": X, "b": X},), (second,)]
    batches = as_source(iter(elements), input_spec=[A, B]).batches(10)
    assert next(batches).num_rows == 10
    with pytest.raises(ValueError, match=r"^Batch 1 \(first row 10\): .*" + message):
        next(batches)


def test_a_data_set_whose_shapes_only_reading_shows():
    parts = iter([X, X[:, :1]])
    signature = tf.TensorSpec(None, tf.float32)
    stream = tf.data.Dataset.from_generator(lambda: parts, output_signature=signature)
    batches = as_source(stream, input_spec=A).batches(10)
    assert next(batches).num_rows == 10
    message = (
        r"^Batch 1 \(first row 10\): x \(model input 'a'\): received shape \(None, 1"
    )
    with pytest.raises(ValueError, match=message):
        next(batches)


@pytest.mark.parametrize("later", [np.int8, np.uint64, np.float64, np.float16])
def test_a_batch_of_another_dtype_that_holds_the_same_values(later):
    source = as_source(iter([X.astype(int), X.astype(later)]), input_spec=A)
    assert source.spec.dtype == tf.int32
    np.testing.assert_array_equal(rows(source, 7), np.concatenate([X, X]))


def test_rows_of_several_lengths_are_allowed_if_the_model_says_so():
    x = {"a": X, "b": X}
    source = as_source(iter([(x,), ({**x, "b": X[:, :1]},)]), input_spec=[A, B])
    assert [batch.num_rows for batch in read(source, 20)] == [10, 10]
