"""Batches of a stream that do not fit the first one, and errors of the user."""

import numpy as np
import pytest
from reading import Tracked

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
            r"received x\['a'\] \(float32\), x\['c'\] \(float32\), expected "
            r"x\['a'\] \(float32\), x\['b'\] \(float32\) as in batch 0. Yield the same",
        ),
        ({"a": X}, ValueError, r"received x\['a'\] \(float32\), expected x\['a'\]"),
        ({"a": X, "b": X[1:]}, ValueError, r"unequal length \(x\['a'\]: 10, x\['b'\]"),
        (
            {"a": X, "b": X.astype(np.int32)},
            ValueError,
            r"x\['b'\] \(int32\), expected .* x\['b'\] \(float32\)",
        ),
        ({"a": X, "b": X.astype(object)}, ValueError, r"x\['b'\] has dtype=object"),
        ({"a": X, "b": None}, TypeError, r"x\['b'\] is NoneType"),
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
