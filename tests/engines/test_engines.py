"""What every engine guarantees."""

import itertools
import time

import keras
import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.inputs import as_source
from tests import helpers
from tests.helpers import BATCH


class FailsFrom(keras.layers.Layer):
    """Fails at batches that hold the given row number or a later one."""

    def __init__(self, row):
        super().__init__()
        self.row = row

    def call(self, inputs):
        tf.debugging.assert_less(inputs, float(self.row), "refused by the model")
        return tf.identity(inputs)


class SlowAt(keras.layers.Layer):
    """Is slow if a batch holds a multiple of a number."""

    def __init__(self, every):
        super().__init__()
        self.every = every

    def call(self, inputs):
        def wait(rows):
            if np.any(rows[:, 0] % self.every == 0):
                time.sleep(0.01)
            return rows

        outputs = tf.numpy_function(wait, [inputs], inputs.dtype, stateful=False)
        return tf.ensure_shape(outputs, inputs.shape)


class OnlyErrors:
    """A source that cannot be read."""

    num_rows = None
    spec = tf.TensorSpec([None, 2], tf.float32)

    def batches(self, batch_size, start=0):
        raise LookupError("the user's own")
        yield


def doubled(rows):
    return 2 * rows + 1


def read_until(iterator, error):
    """Batches up to an exception, which is returned with them."""
    batches = []
    with pytest.raises(error) as caught:
        for batch in iterator:
            batches.append(batch)
    return batches, caught.value


def test_rows_come_in_order_if_some_chunks_are_slow(engine_of, strategies):
    engine = engine_of(helpers.doubling_model(SlowAt(96)), strategies[3])
    rows = helpers.numbered_rows(2000)
    result = helpers.joined(engine.run(as_source(rows), BATCH))
    np.testing.assert_array_equal(result, doubled(rows))


def test_a_run_from_the_middle_gives_the_same_rows(engine_of, strategies):
    engine = engine_of(helpers.dense_model(), strategies[2])
    source = as_source(np.random.default_rng(5).random((300, 2), dtype=np.float32))
    whole = helpers.joined(engine.run(source, BATCH))
    for start in (1, 4, 150, 299, 300):
        rest = helpers.joined(engine.run(source, BATCH, start=start), start)
        np.testing.assert_array_equal(rest, whole[start:])


class TestErrors:
    def test_of_a_generator_come_after_the_rows_before(self, engine):
        error = LookupError("the user's own")

        def batches():
            yield from itertools.islice(helpers.numbered_batches(1024), 5)
            raise error

        with helpers.no_thread_left():
            source = as_source(batches())
            delivered, raised = read_until(engine.run(source, BATCH), LookupError)
        assert raised is error
        result = helpers.joined(delivered)
        np.testing.assert_array_equal(result, doubled(helpers.numbered_rows(5 * 1024)))

    def test_at_the_very_first_row(self, engine):
        with helpers.no_thread_left():
            delivered, raised = read_until(engine.run(OnlyErrors(), BATCH), LookupError)
        assert delivered == []
        assert str(raised) == "the user's own"

    @pytest.mark.parametrize("row", [0, 1, 2000])
    def test_of_the_model_come_after_whole_rows(self, row, engine_of, strategies):
        engine = engine_of(helpers.doubling_model(FailsFrom(row)), strategies[2])
        rows = helpers.numbered_rows(3000)
        with helpers.no_thread_left():
            batches, raised = read_until(
                engine.run(as_source(rows), BATCH), tf.errors.InvalidArgumentError
            )
        assert "refused by the model" in str(raised)
        if batches:
            result = helpers.joined(batches)
            assert len(result) <= row
            np.testing.assert_array_equal(result, doubled(rows[: len(result)]))

    def test_the_engine_can_run_again_after_an_error(self, engine_of, strategies):
        engine = engine_of(helpers.doubling_model(FailsFrom(100)), strategies[2])
        read_until(
            engine.run(as_source(helpers.numbered_rows(300)), BATCH),
            tf.errors.InvalidArgumentError,
        )
        rows = helpers.numbered_rows(100)
        result = helpers.joined(engine.run(as_source(rows), BATCH))
        np.testing.assert_array_equal(result, doubled(rows))
