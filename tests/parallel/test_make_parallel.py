"""Every row of every batch runs on the devices that were asked for."""

import collections
import functools

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests import helpers
from tests.conformance import zoo

BATCH_SIZES = (1, 2, 3, 5, 8, 32)
MOST_ROWS = 3 * 32 + 5
DEVICES = ("CPU:0", "CPU:1", "CPU:2", "CPU:3")


@functools.cache
def expected(name):
    """Plain model, rows, and its outputs for all rows on one device."""
    model = zoo.build(name)
    rows = zoo.rows(name, MOST_ROWS)
    return model, rows, model.predict(rows, batch_size=MOST_ROWS, verbose=0)


def part(nest, stop, start=0):
    return tf.nest.map_structure(lambda array: array[start:stop], nest)


def assert_close(results, outputs, message=""):
    tf.nest.assert_same_structure(results, outputs)
    for one, other in zip(
        tf.nest.flatten(results), tf.nest.flatten(outputs), strict=True
    ):
        assert one.shape == other.shape, message
        np.testing.assert_allclose(one, other, 1e-5, 1e-6, err_msg=message)


def compiled(model, rows):
    """The model as a function of batches of any number of rows, traced once."""
    spec = tf.nest.map_structure(
        lambda array: tf.TensorSpec([None, *array.shape[1:]], array.dtype), rows
    )
    step = tf.function(lambda x: model(x, training=False), input_signature=[spec])
    return step.get_concrete_function()


def devices_of_ops(function):
    """Name of an op -> its devices in the graph and in the graph's functions."""
    graph = function.graph.as_graph_def()
    nodes = [*graph.node, *(n for f in graph.library.function for n in f.node_def)]
    found = collections.defaultdict(collections.Counter)
    for node in nodes:
        found[node.op][node.device.rpartition("device:")[2]] += 1
    return found


CASES = [(name, 4) for name in zoo.ZOO] + [("conv_bn", 1), ("two_inputs", 3)]


@pytest.mark.parametrize(("name", "gpu_count"), CASES)
def test_batches_of_any_size(name, gpu_count):
    model, rows, outputs = expected(name)
    step = compiled(mgpu.make_parallel(model, gpu_count), rows)
    for size in BATCH_SIZES:
        batch = tf.nest.map_structure(tf.constant, part(rows, size))
        results = tf.nest.map_structure(lambda leaf: leaf.numpy(), step(batch))
        assert_close(results, part(outputs, size), f"{size} rows")


@pytest.mark.parametrize("gpu_count", [1, 2, 3, 4])
def test_predict(gpu_count):
    model, rows, outputs = expected("dense")
    parallel = mgpu.make_parallel(model, gpu_count)
    for batch_size in BATCH_SIZES:
        for num_rows in (1, 3, 2 * batch_size - 1, 2 * batch_size + 2):
            results = parallel.predict(rows[:num_rows], batch_size, verbose=0)
            assert_close(results, outputs[:num_rows], f"{batch_size} {num_rows}")


@pytest.mark.parametrize("name", ["two_inputs", "dict_output", "masked_embedding"])
def test_predict_of_other_structures(name):
    model, rows, outputs = expected(name)
    parallel = mgpu.make_parallel(model, 3)
    assert_close(parallel.predict(part(rows, 12), 5, verbose=0), part(outputs, 12))


def test_predict_of_datasets_and_single_batches():
    model, rows, outputs = expected("dense")
    parallel = mgpu.make_parallel(model, 4)
    dataset = tf.data.Dataset.from_tensor_slices(rows).batch(6)
    assert_close(parallel.predict(dataset, verbose=0), outputs)
    assert_close(parallel.predict_on_batch(rows[:3]), outputs[:3])
    assert_close(parallel(rows[:3]).numpy(), outputs[:3])


class Nested(keras.Model):
    """Takes and returns nests, and an input that may be missing."""

    def __init__(self):
        super().__init__()
        self.dense = keras.layers.Dense(2)

    def call(self, inputs):
        first, others = inputs["first"], inputs["others"]
        total = self.dense(first) + (0.0 if others[1] is None else others[1])
        return {"both": (total, [others[0]]), "none": None}


@pytest.mark.parametrize("training", [False, True])
def test_nests_with_nothing_in_some_places(training):
    model = Nested()
    ones = tf.ones((5, 2))
    inputs = {"first": ones, "others": [tf.range(5), None]}
    outputs = model(inputs)
    results = mgpu.make_parallel(model, 3)(inputs, training=training)
    assert results["none"] is None
    np.testing.assert_allclose(results["both"][0], outputs["both"][0], 1e-5, 1e-6)
    np.testing.assert_array_equal(results["both"][1][0], range(5))
    full = mgpu.make_parallel(model, 3)({"first": ones, "others": [ones, ones]})
    np.testing.assert_allclose(full["both"][0], outputs["both"][0] + 1, 1e-5, 1e-6)


def test_each_tower_is_on_its_device_and_the_results_on_the_first_cpu():
    model, rows, _ = expected("conv_bn")
    ops = devices_of_ops(compiled(mgpu.make_parallel(model, 4), rows))
    assert ops["Conv2D"] == dict.fromkeys(DEVICES, 1)
    assert set(ops["ConcatV2"]) == {"CPU:0"}
    assert "If" not in ops and "StatelessIf" not in ops


class Placed(keras.layers.Layer):
    """Records where it runs and on how many rows."""

    def __init__(self):
        super().__init__()
        self.seen = []

    def call(self, inputs):
        outputs = inputs * 2.0
        self.seen.append((outputs.device.rpartition("device:")[2], inputs.shape[0]))
        return outputs


@pytest.mark.parametrize(
    ("num_rows", "sizes"),
    [(1, [1, 1, 1]), (2, [1, 1, 1]), (3, [1, 1, 1]), (5, [1, 2, 2]), (8, [2, 3, 3])],
)
def test_where_rows_run(num_rows, sizes):
    placed = Placed()
    model = keras.Sequential([keras.Input((2,)), placed])
    parallel = mgpu.make_parallel(model, gpus=[3, 0, 2])
    placed.seen.clear()
    rows = helpers.numbered_rows(num_rows)
    results = parallel(rows)
    assert placed.seen == list(zip(["CPU:3", "CPU:0", "CPU:2"], sizes, strict=True))
    np.testing.assert_array_equal(results, 2 * rows)
    assert results.device.endswith("CPU:0")


def test_weights_are_shared():
    model = helpers.dense_model()
    parallel = mgpu.make_parallel(model, 4)
    assert parallel.model is model
    assert parallel.get_layer(model.name) is model
    assert [id(v) for v in parallel.variables] == [id(v) for v in model.variables]
    before = parallel.predict(np.ones((5, 2)), verbose=0)
    model.set_weights([2 * w for w in model.get_weights()])
    after = parallel.predict(np.ones((5, 2)), verbose=0)
    np.testing.assert_allclose(after, 2 * before, 1e-5, 1e-6)
    parallel.variables[0].assign(np.zeros((2, 3)))
    assert not model.get_weights()[0].any()


def test_a_model_that_is_not_built_yet():
    model = keras.Sequential([keras.layers.Dense(3)])
    parallel = mgpu.make_parallel(model, 2)
    results = parallel.predict(np.ones((3, 2)), verbose=0)
    assert len(model.weights) == 2
    assert_close(results, model.predict(np.ones((3, 2)), verbose=0))


def test_within_another_model():
    inner = helpers.dense_model()
    inputs = keras.Input((2,))
    outputs = keras.layers.Rescaling(3.0)(mgpu.make_parallel(inner, 3)(inputs))
    rows = np.ones((5, 2), np.float32)
    results = keras.Model(inputs, outputs).predict(rows, verbose=0)
    assert outputs.shape == (None, 3)
    assert_close(results, 3 * inner.predict(rows, verbose=0))


def test_inputs_keep_their_dtype():
    model = keras.Sequential(
        [keras.Input((1,), dtype="float64"), keras.layers.Dense(1, dtype="float64")]
    )
    model.set_weights([np.ones((1, 1)), np.zeros(1)])
    rows = np.array([[1 + 1e-12], [1.0]])
    results = mgpu.make_parallel(model, 2)(rows)  # `predict` would cast them first
    np.testing.assert_array_equal(results, rows)


@pytest.mark.parametrize(
    ("arguments", "devices"),
    [
        ({}, DEVICES),
        ({"gpu_count": 1}, DEVICES[:1]),
        ({"gpu_count": np.int64(3)}, DEVICES[:3]),
        ({"gpus": 2}, DEVICES[:2]),
        ({"gpus": [2, 0]}, ("CPU:2", "CPU:0")),
        ({"gpus": (1,)}, ("CPU:1",)),
        ({"devices": "cpu:3,cpu:1"}, ("CPU:3", "CPU:1")),
        ({"devices": "cpu"}, DEVICES),
    ],
)
def test_devices(arguments, devices):
    assert mgpu.make_parallel(helpers.dense_model(), **arguments).devices == devices


@pytest.mark.parametrize(
    ("arguments", "error", "message"),
    [
        ({"gpu_count": 5}, ValueError, "gpu_count=5, but .* CPU:0, .*CPU:3.*split the"),
        (
            {"gpu_count": 0},
            ValueError,
            "gpu_count=0. Expected an integer of at least 1",
        ),
        ({"gpu_count": True}, TypeError, "gpu_count=True of type bool"),
        ({"gpu_count": 1.5}, TypeError, "gpu_count=1.5 of type float"),
        ({"gpus": "2"}, TypeError, "gpus='2' of type str"),
        ({"gpus": -1}, ValueError, "gpus=-1. Expected an integer of at least 1"),
        ({"gpus": []}, ValueError, r"gpus=\[\] names no device"),
        ({"gpus": [0, 7]}, ValueError, "no device CPU:7 on this machine.*CPU:0, CPU:1"),
        ({"gpus": [1, 1]}, ValueError, "more than once: CPU:1"),
        ({"gpus": [-1]}, ValueError, "gpus holds -1. Expected"),
        ({"gpus": ["0"]}, TypeError, "gpus holds '0' of type str"),
        ({"devices": "gpu:0"}, ValueError, "no device GPU:0 on this machine"),
        ({"gpu_count": 2, "gpus": 4}, ValueError, "gpu_count=2, gpus=4. Expected one"),
    ],
)
def test_wrong_devices(arguments, error, message):
    with pytest.raises(error, match=message):
        mgpu.make_parallel(helpers.dense_model(), **arguments)


class OwnPredictStep(keras.Model):
    def predict_step(self, data):
        return data


def stateful():
    inputs = keras.Input((3, 2), batch_size=4)
    return keras.Model(inputs, keras.layers.LSTM(2, stateful=True)(inputs))


def fixed_batch():
    inputs = keras.Input((2,), batch_size=4)
    return keras.Model(inputs, keras.layers.Dense(2)(inputs))


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (lambda: "model.keras", TypeError, "Expected a Keras model, received 'model"),
        (stateful, ValueError, r"has stateful recurrent layers \['lstm"),
        (fixed_batch, ValueError, "declares a batch of 4 rows"),
        (OwnPredictStep, ValueError, "OwnPredictStep overrides predict_step"),
        (
            lambda: mgpu.make_parallel(helpers.dense_model(), 2),
            ValueError,
            "is parallel already, on CPU:0, CPU:1. Pass its attribute `model`",
        ),
    ],
)
def test_models_that_are_refused(make, error, message):
    with pytest.raises(error, match=message):
        mgpu.make_parallel(make(), 2)


def test_a_custom_predict_step_is_refused_on_one_device_too():
    with pytest.raises(ValueError, match="OwnPredictStep overrides predict_step"):
        mgpu.make_parallel(OwnPredictStep(), 1)


def test_models_of_tf_keras_are_refused():
    tf_keras = pytest.importorskip("tf_keras")
    model = tf_keras.Sequential([tf_keras.layers.Dense(1)])
    with pytest.raises(TypeError, match="a model of tf_keras. Expected a model of Ker"):
        mgpu.make_parallel(model, 2)


def test_strategies_are_refused(strategies):
    with strategies[2].scope():
        model = helpers.dense_model()
        with pytest.raises(ValueError, match="cannot be used with a tf.distribute str"):
            mgpu.make_parallel(model, 2)
    with pytest.raises(ValueError, match="was built in the scope of one"):
        mgpu.make_parallel(model, 2)
    parallel = mgpu.make_parallel(helpers.dense_model(), 2)
    with (
        strategies[2].scope(),
        pytest.raises(ValueError, match="called under a tf.distribute strategy"),
    ):
        parallel(np.ones((4, 2)))


def one_output(function):
    inputs = keras.Input((2,))
    return keras.Model(inputs, keras.layers.Lambda(function)(inputs))


@pytest.mark.parametrize(
    ("function", "message"),
    [
        (tf.reduce_sum, "no row for each row of the input"),
        (lambda x: x[:1], "no row for each row of the input"),
        (lambda x: tf.concat([x, x], 0), "no row for each row of the input"),
    ],
)
def test_outputs_without_rows(function, message):
    parallel = mgpu.make_parallel(one_output(function), 2)
    with pytest.raises((ValueError, tf.errors.InvalidArgumentError), match=message):
        parallel.predict(np.ones((7, 2)), verbose=0)


@pytest.mark.parametrize(
    ("inputs", "error", "message"),
    [
        (np.ones((0, 2)), ValueError, r"shapes \[\(0, 2\)\]. Expected .* at least one"),
        ({"x": np.ones((2, 2)), "y": np.ones((3, 2))}, ValueError, "same number of ro"),
        (tf.constant(1.0), ValueError, "received a scalar"),
        (tf.sparse.eye(3), TypeError, "dense tensors, and received a SparseTensor"),
    ],
)
def test_inputs_that_cannot_be_split(inputs, error, message):
    model = keras.Sequential([keras.layers.Identity()])
    model.built = True
    with pytest.raises(error, match=message):
        mgpu.make_parallel(model, 2)(inputs)


def test_zero_rows_in_a_graph():
    model, rows, _ = expected("dense")
    step = compiled(mgpu.make_parallel(model, 2), rows)
    with pytest.raises(tf.errors.InvalidArgumentError, match="received 0 rows"):
        step(tf.zeros((0, 5)))
