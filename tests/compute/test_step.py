"""Compiled steps are kept, and each reads its replica's own variables."""

import threading
import types

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models
from keras_mgpu_strategy.compute import heads
from keras_mgpu_strategy.compute.sharing import is_for_all
from keras_mgpu_strategy.compute.step import Signature, StepCompiler
from keras_mgpu_strategy.report import StageClock
from tests import helpers

ENGINES = ["threads", "mirrored"]
ROWS = tf.TensorSpec([None, 2], tf.float32)


class CountTraces(keras.layers.Layer):
    """Counts in Python, so once for each trace rather than for each call."""

    count = 0

    def call(self, inputs):
        type(self).count += 1
        return inputs


@pytest.fixture
def traces():
    """Returns how often the layer was traced since the last call."""
    seen = CountTraces.count

    def since():
        nonlocal seen
        new, seen = CountTraces.count - seen, CountTraces.count
        return new

    return since


def compiler_of(model, strategy):
    return StepCompiler(models.replicate(model, strategy))


def step_of(compiler, replica, **options):
    signature = Signature(ROWS, **options)
    return compiler.replica_step(signature, replica, StageClock(4))[1]


@pytest.mark.parametrize("kind", ["plain", "frozen", "xla"])
def test_micro_batches_give_the_rows_of_the_model(kind, strategies):
    model = helpers.dense_model()
    compiler = compiler_of(model, strategies[2])
    rows = helpers.numbered_rows(3 * 7)
    expected = model.predict(rows, verbose=0)
    for replica in (0, 1):
        signature = Signature(ROWS, batch_size=3, step=kind)
        device, step = compiler.replica_step(signature, replica, StageClock(4))
        with tf.device(device):
            result = step(tf.constant(rows))
        np.testing.assert_allclose(result, expected, rtol=1e-5, atol=1e-6)


def test_the_head_is_applied_to_every_output(strategies):
    inputs = keras.Input((2,))
    model = keras.Model(
        inputs, {"a": inputs, "b": [keras.layers.Rescaling(-1)(inputs)]}
    )
    compiler = compiler_of(model, strategies[1])
    step = step_of(compiler, 0, batch_size=2, head=heads.head_of("predict_classes"))
    outputs = step(tf.constant([[1.0, 2.0], [3.0, 1.0]]))
    assert outputs["a"].numpy().tolist() == [1, 0]
    assert outputs["b"][0].numpy().tolist() == [0, 1]


def test_the_model_sees_one_static_batch_size(strategies):
    seen = []

    class Look(keras.layers.Layer):
        def call(self, inputs):
            seen.append(inputs.shape[0])
            return inputs

    compiler = compiler_of(helpers.doubling_model(Look()), strategies[2])
    seen.clear()
    for replica in (0, 1):
        step_of(compiler, replica, batch_size=5)(tf.zeros((15, 2)))
    assert seen == [5]


class TestEachStepIsCompiledOnce:
    def test_same_signature(self, strategies, traces):
        model = helpers.doubling_model(CountTraces())
        compiler = compiler_of(model, strategies[2])
        traces()
        first = step_of(compiler, 0, batch_size=4)
        assert traces() == 1
        assert step_of(compiler, 0, batch_size=4) is first
        for num_rows in (4, 8, 40):
            first(tf.zeros((num_rows, 2)))
        assert traces() == 0

    def test_another_batch_head_or_replica(self, strategies, traces):
        model = helpers.doubling_model(CountTraces())
        compiler = compiler_of(model, strategies[2])
        step_of(compiler, 0, batch_size=4)
        traces()
        step_of(compiler, 1, batch_size=4)
        step_of(compiler, 0, batch_size=5)
        step_of(compiler, 0, batch_size=4, head=heads.head_of("predict_classes"))
        assert traces() == 2  # the other replica shares that of the first

    def test_several_threads_at_once(self, strategies, traces):
        model = helpers.doubling_model(CountTraces())
        compiler = compiler_of(model, strategies[2])
        traces()
        barrier = threading.Barrier(6)

        def compile_step(number):
            barrier.wait()
            step_of(compiler, number % 2, batch_size=4)

        threads = [
            threading.Thread(target=compile_step, args=(number,)) for number in range(6)
        ]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        assert traces() == 1

    @pytest.mark.parametrize("engine", ENGINES)
    def test_calls_of_many_sizes(self, engine, strategies, traces):
        with strategies[2].scope():
            model = helpers.doubling_model(CountTraces())
            predictor = mgpu.Predictor(model, engine=engine)
        predictor.predict(helpers.numbered_rows(50), 8, verbose=0)
        assert 0 < traces() <= 6
        for num_rows in (0, 1, 3, 8, 17, 400):
            predictor.predict(helpers.numbered_rows(num_rows), 8, verbose=0)
        assert traces() == 0


def with_unequal_copies(model, strategy, engine):
    """A Predictor whose results show which copies were read."""
    with strategy.scope():
        predictor = mgpu.Predictor(model, engine=engine)
    for variable in predictor.model.variables:
        copies = strategy.experimental_local_results(variable.value)
        for index, copy in enumerate(copies):
            copy.assign(tf.zeros_like(copy) + index)
    return predictor


class Checks(keras.layers.Layer):
    """Does more than compute what it returns."""

    def call(self, inputs):
        with tf.control_dependencies([tf.debugging.Assert(True, [0])]):
            return tf.identity(inputs)


@pytest.mark.parametrize("engine", ENGINES)
def test_each_replica_reads_its_own_copy(engine, strategies):
    model = keras.Sequential([helpers.dense_model(), Checks()])
    predictor = with_unequal_copies(model, strategies[3], engine)
    result = predictor.predict(np.ones((300, 2), np.float32), 6, verbose=0)
    # Two weights and a bias: replica r gives 3 r for a row of ones.
    per_row = set(result[:, 0].tolist())
    assert per_row <= {0.0, 3.0, 6.0}
    assert len(per_row) > 1
    for batch in np.split(result, 150):
        assert len(np.unique(batch)) == 1


def test_a_step_that_only_reads_is_optimized_once_for_one_memory(strategies):
    predictor = with_unequal_copies(helpers.dense_model(), strategies[3], "threads")
    result = predictor.predict(np.ones((300, 2), np.float32), 6, verbose=0)
    assert len(np.unique(result)) == 1  # one replica's copies give all rows


class Elsewhere(keras.layers.Layer):
    """Computes on a device that it names."""

    def call(self, inputs):
        with tf.device("CPU:1"):
            return inputs + 1.0


class OwnSeed(keras.layers.Layer):
    """Draws from an op that keeps its own state."""

    def call(self, inputs):
        return inputs + tf.random.uniform(tf.shape(inputs))


class MadeWithin(keras.layers.Layer):
    """Reads a variable that it makes when it is traced, so there is only one copy."""

    def call(self, inputs):
        if tf.executing_eagerly() or isinstance(inputs, keras.KerasTensor):
            return inputs
        with tf.init_scope():
            self.made = tf.Variable([1.0, 1.0], name="seed_generator_state")
        return inputs + self.made


@pytest.mark.parametrize("layer", [Elsewhere, OwnSeed, MadeWithin])
def test_what_differs_between_replicas_is_traced_for_each(layer, strategies, traces):
    model = helpers.doubling_model(layer(), CountTraces())
    compiler = compiler_of(model, strategies[2])
    traces()
    for replica in (0, 1):
        step = step_of(compiler, replica, batch_size=4)
        assert traces() == 1
        assert step(tf.zeros((8, 2))).shape == (8, 2)


def test_a_trace_too_large_to_inspect_is_not_shared():
    def too_large():
        raise ValueError("Cannot serialize protocol buffer of type tensorflow.GraphDef")

    graph = types.SimpleNamespace(as_graph_def=too_large)
    step = types.SimpleNamespace(captured_inputs=[], variables=[], graph=graph)
    assert not is_for_all(step, [])


SHELLS = {
    "bare": lambda x: x,
    "list": lambda x: [x],
    "tuple": lambda x: (x,),
    "dict": lambda x: {"x": x},
}


@pytest.mark.parametrize("declared", SHELLS)
def test_a_single_input_may_come_in_any_structure(declared, strategies):
    x = keras.Input((2,), name="x")
    model = keras.Model(SHELLS[declared](x), keras.layers.Rescaling(2.0)(x))
    with strategies[1].scope():
        predictor = mgpu.Predictor(model)
    rows = helpers.numbered_rows(3)
    for shell in SHELLS.values():
        # Keras warns, which is an error here, if the structure differs from its own.
        result = predictor.predict(shell(rows), batch_size=3, verbose=0)
        np.testing.assert_array_equal(result, 2 * rows)
