"""Specs against what models declare; each accepted case is one that Keras accepts."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from reading import read

from keras_mgpu_strategy.inputs import as_source, select_inputs
from keras_mgpu_strategy.sources.matching import match_inputs


def _spec(*shape, dtype=tf.float32, name=None):
    return tf.TensorSpec([None, *shape], dtype, name)


A, B = _spec(2, name="a"), _spec(3, name="b")
ONE = _spec(28, 28, 1, name="image")


@pytest.mark.parametrize(
    ("received", "declared"),
    [
        ({"anything": _spec(9)}, None),
        (A, A),
        ([A], A),
        ((A,), A),
        ({"a": A}, A),
        ({"a": A, "extra": _spec(9)}, A),
        (A, [A]),
        (A, {"a": A}),
        ([A, B], [A, B]),
        ((A, B), [A, B]),
        ({"b": B, "a": A}, [A, B]),
        ({"b": B, "a": A, "extra": _spec(9)}, [A, B]),
        ({"b": B, "a": A, "extra": _spec(9)}, {"a": A, "b": B}),
        ([A, B], {"a": A, "b": B}),
        ({"p": [A, B]}, {"p": [A, B]}),
        (_spec(28, 28), ONE),
        (_spec(5, 1), _spec(5)),
        (_spec(), _spec(1)),
        (_spec(1), _spec()),
        (_spec(None, 3), _spec(7, 3)),
        (_spec(7, 3), _spec(None, 3)),
        (tf.TensorSpec(None), A),
        (A, tf.TensorSpec(None)),
        (_spec(2, dtype=tf.uint8), A),
        (A, _spec(2, dtype=tf.int32)),
        (_spec(2, dtype=tf.bool), A),
        (_spec(2, dtype=tf.string), _spec(2, dtype=tf.string)),
        (A, _spec(2, dtype=tf.complex64)),
        (tf.TensorSpec([8, 2]), tf.TensorSpec([3, 2])),
    ],
)
def test_inputs_that_fit(received, declared):
    match_inputs(received, declared)


@pytest.mark.parametrize(
    ("received", "declared", "message"),
    [
        (
            {"a": A, "c": B},
            {"a": A, "b": B},
            r"x lacks the model inputs \['b'\]: received the keys \['a', 'c'\], "
            r"expected \['a', 'b'\]. Add the missing arrays.",
        ),
        ({"c": A}, [A, B], r"lacks the model inputs \['a', 'b'\]"),
        ({"c": A}, A, r"lacks the model inputs \['a'\]"),
        (
            [A],
            [A, B],
            r"x has 1 inputs, expected 2: \['a', 'b'\]. Pass one array for each",
        ),
        ([A, B], A, r"x has 2 inputs, expected 1: \['a'\]"),
        (
            A,
            [A, B],
            r"x is one array of shape \(None, 2\) and dtype float32, expected 2 "
            r"inputs: \['a', 'b'\]. Pass a list",
        ),
        (
            (B, A),
            {"b": B, "a": A},
            r"x is a tuple, expected a dict with the keys \['b', 'a'\]: the order",
        ),
        (
            {"a": B},
            {"a": A},
            r"^x\['a'\] \(model input 'a'\): received shape \(None, 3\) and dtype "
            r"float32, expected shape \(None, 2\) and dtype float32. Bring the rows "
            r"into the shape \(2,\), e.g. by x.reshape",
        ),
        (
            _spec(27, 28),
            ONE,
            r"received shape \(None, 27, 28\) .* expected shape \(None, 28, 28, 1\)",
        ),
        (
            _spec(28, 3),
            _spec(28, 28, 3),
            r"x: received .*if the batch axis is missing, add it \(x\[np.newaxis\] for "
            r"a single row, .batch\(...\) on a tf.data.Dataset",
        ),
        (_spec(5), _spec(1), r"received shape \(None, 5\) .* shape \(None, 1\)"),
        (_spec(), _spec(2), r"received shape \(None,\) .* shape \(None, 2\)"),
        (_spec(2, 2, 1), _spec(2), r"received shape \(None, 2, 2, 1\)"),
        (
            {"p": [A, A]},
            {"p": [A, B]},
            r"^x\['p'\]\[1\] \(model input 'b'\): received shape \(None, 2\)",
        ),
        (
            _spec(2, dtype=tf.string),
            A,
            r"^x \(model input 'a'\): received shape \(None, 2\) and dtype string, "
            r"expected .* dtype float32. Convert the strings to numbers",
        ),
        (
            A,
            _spec(2, dtype=tf.string),
            r"dtype float32, expected .* dtype string. Convert the numbers to strings",
        ),
        (_spec(2, dtype=tf.complex64), A, "dtype complex64, .*Pass real numbers"),
    ],
)
def test_inputs_that_do_not_fit(received, declared, message):
    with pytest.raises(ValueError, match=message):
        match_inputs(received, declared)


def test_a_dataset_without_a_batch_axis():
    images = np.zeros((4, 28, 28, 1), np.float32)
    source = as_source(tf.data.Dataset.from_tensor_slices(images))
    with pytest.raises(ValueError, match=r"\.batch\(\.\.\.\) on a tf.data.Dataset"):
        match_inputs(source.spec, ONE)


def test_undeclared_keys_do_not_reach_the_model():
    x = {"b": np.zeros((5, 3)), "aa": np.zeros((5, 9)), "a": np.ones((5, 2))}
    for declared in ({"a": A, "b": B}, [A, B]):
        selected = select_inputs(as_source(x), declared)
        assert selected.num_rows == 5
        assert set(selected.spec) == {"a", "b"}
        batches = read(selected, 2, start=1)
        assert [set(batch.inputs) for batch in batches] == [{"a", "b"}] * 2
        np.testing.assert_array_equal(batches[0].inputs["a"], x["a"][1:3])
    assert set(select_inputs(as_source(x), A).spec) == {"a"}


def test_undeclared_keys_do_not_change_the_results():
    inputs = {name: keras.Input((2,), name=name) for name in ("a", "b")}
    model = keras.Model(inputs, inputs["b"] - inputs["a"])
    declared = {name: _spec(2, name=name) for name in inputs}
    ones = np.ones((3, 2), np.float32)
    source = as_source({"a": ones, "aa": 100 * ones, "b": 5 * ones})
    match_inputs(source.spec, declared)
    (batch,) = select_inputs(source, declared).batches(8)
    np.testing.assert_array_equal(model(batch.inputs), 4 * ones)


@pytest.mark.parametrize(
    ("x", "declared"),
    [
        ({"a": np.ones((5, 2)), "b": np.ones((5, 3))}, {"a": A, "b": B}),
        (np.ones((5, 2)), A),
        ({"a": np.ones((5, 2))}, None),
    ],
)
def test_a_source_without_undeclared_keys_is_left_as_it_is(x, declared):
    source = as_source(x)
    assert select_inputs(source, declared) is source


def test_closing_a_selection_closes_the_generator():
    closed = []

    def generator():
        try:
            while True:
                yield {"a": np.ones((5, 2)), "c": np.ones((5, 2))}
        finally:
            closed.append(True)

    batches = select_inputs(as_source(generator()), A).batches(2)
    next(batches)
    batches.close()
    assert closed
