"""`fit` and `evaluate` of a parallel model, compared with the plain one."""

import warnings

import keras
import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.conformance import zoo
from tests.parallel.test_make_parallel import devices_of_ops

layers = keras.layers
NUM_ROWS = 13  # batches of 4 end with a single row


def of(*parts, shape=(5,)):
    return keras.Sequential([keras.Input(shape), *parts])


def two_alike(make):
    models = []
    for _ in range(2):
        keras.utils.set_random_seed(0)
        models.append(make())
    return models


def targets_like(model, rows):
    random = np.random.default_rng(5)
    return tf.nest.map_structure(
        lambda output: random.random(output.shape).astype(np.float32),
        model.predict(rows, verbose=0),
    )


def assert_trained_alike(one, other):
    for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, 1e-4, 1e-6)


def assert_trains_alike(models, rows, gpu_count, loss="mse", **settings):
    """Fits and evaluates the first one in parallel, the second one as it is."""
    shared, plain = models
    parallel = mgpu.make_parallel(shared, gpu_count)
    targets = targets_like(plain, rows)
    records = []
    for model in (parallel, plain):
        model.compile("sgd", loss, **settings)
        fitted = model.fit(rows, targets, 4, epochs=2, verbose=0, shuffle=False)
        scores = model.evaluate(rows, targets, 5, verbose=0, return_dict=True)
        records.append({**fitted.history, **scores})
    assert set(records[0]) == set(records[1])
    for key, values in records[1].items():
        np.testing.assert_allclose(records[0][key], values, 1e-5, err_msg=key)
    assert_trained_alike(shared, plain)


@pytest.mark.parametrize("gpu_count", [1, 3])
def test_dense(gpu_count):
    assert_trains_alike(
        two_alike(lambda: zoo.build("dense")),
        zoo.rows("dense", NUM_ROWS),
        gpu_count,
        metrics=["mae"],
    )


@pytest.mark.parametrize("name", ["conv2d", "lstm", "dict_output"])
def test_other_models(name):
    models = two_alike(lambda: zoo.build(name))
    assert_trains_alike(models, zoo.rows(name, NUM_ROWS), 2)


def test_masks_reach_the_loss():
    def make():
        return of(layers.Embedding(5, 4, mask_zero=True), layers.Dense(3), shape=(7,))

    rows = zoo.rows("masked_embedding", NUM_ROWS) % 5
    assert (rows == 0).mean() > 0.1
    assert_trains_alike(two_alike(make), rows, 3)


def named_outputs():
    inputs = keras.Input((5,))
    return keras.Model(
        inputs, [layers.Dense(2, name="b")(inputs), layers.Dense(1, name="a")(inputs)]
    )


def test_losses_by_the_names_of_outputs():
    rows = zoo.rows("dense", NUM_ROWS)
    loss = {"b": "mse", "a": "mae"}
    assert_trains_alike(two_alike(named_outputs), rows, 3, loss)


def test_weights_that_are_regularized_count_once():
    models = two_alike(lambda: of(layers.Dense(2, kernel_regularizer="l2")))
    assert_trains_alike(models, zoo.rows("dense", NUM_ROWS), 3)


@pytest.mark.parametrize(
    "settings", [{"run_eagerly": True}, {"steps_per_execution": 3}]
)
def test_other_ways_to_run_a_step(settings):
    models = two_alike(lambda: zoo.build("dense"))
    assert_trains_alike(models, zoo.rows("dense", NUM_ROWS), 3, **settings)


def test_mixed_precision():
    policy = keras.dtype_policies.DTypePolicy("mixed_float16")
    shared, plain = two_alike(lambda: of(layers.Dense(2, dtype=policy)))
    rows = zoo.rows("dense", NUM_ROWS)
    targets = targets_like(plain, rows)
    for model in (mgpu.make_parallel(shared, 3), plain):
        sgd = keras.optimizers.LossScaleOptimizer(keras.optimizers.SGD())
        model.compile(sgd, "mse")
        model.fit(rows, targets, 4, verbose=0, shuffle=False)
    for a, b in zip(shared.get_weights(), plain.get_weights(), strict=True):
        np.testing.assert_allclose(a, b, 1e-2, 1e-3)


class Seen(layers.Layer):
    """Counts the rows that it is trained on, and their sum."""

    def build(self, input_shape):
        self.total = self.add_weight(shape=(2,), initializer="zeros", trainable=False)

    def call(self, inputs, training=False):
        if training:
            size = tf.cast(tf.shape(inputs)[0], tf.float32)
            tf.debugging.assert_greater(size, 0.0)
            self.total.assign_add(tf.stack([size, tf.reduce_sum(inputs)]))
        return inputs


def test_no_row_is_trained_on_twice():
    seen = Seen()
    model = of(seen, layers.Dense(1), shape=(1,))
    parallel = mgpu.make_parallel(model, 4)
    parallel.compile("sgd", "mse")
    rows = np.arange(1, 14, dtype=np.float32)[:, np.newaxis]
    for num_rows in (1, 2, 3, 4, 5, 9, 13):
        seen.total.assign([0, 0])
        parallel.fit(rows[:num_rows], rows[:num_rows], 6, verbose=0)
        assert seen.total.numpy().tolist() == [num_rows, rows[:num_rows].sum()]
    seen.total.assign([0, 0])
    parallel.evaluate(rows, rows, verbose=0)
    parallel.predict(rows, verbose=0)
    assert seen.total.numpy().tolist() == [0, 0]


def test_statistics_of_fewer_rows_than_devices_are_those_of_one_device():
    models = two_alike(lambda: of(layers.BatchNormalization(), layers.Dense(1)))
    assert_trains_alike(models, zoo.rows("dense", 2), 3)


def test_statistics_and_dropout_of_all_devices_are_kept():
    normalized = layers.BatchNormalization(momentum=0.5)
    model = of(normalized, layers.Dropout(0.5), layers.Dense(1), shape=(1,))
    parallel = mgpu.make_parallel(model, 2)
    parallel.compile("sgd", "mse")
    rows = np.array([[0.0], [2.0], [10.0], [14.0]], np.float32)
    parallel.fit(rows, rows, verbose=0, shuffle=False)
    # 0, then halfway to the mean 1 of the first tower, then to 12 of the second.
    moving_mean = model.layers[0].moving_mean.numpy()
    np.testing.assert_allclose(moving_mean, [(0.5 + 12) / 2], 1e-6)


def test_both_passes_are_on_the_devices():
    model = zoo.build("conv2d")
    parallel = mgpu.make_parallel(model, 4)
    parallel.compile("sgd", "mse")
    specs = [tf.TensorSpec([None, 8, 8, 3]), tf.TensorSpec([None, 6, 6, 4])]
    step = tf.function(lambda *data: parallel.train_step(data)["loss"])
    ops = devices_of_ops(step.get_concrete_function(*specs))
    # One step on all devices, and one for a few rows on the first device.
    placed = {"CPU:0": 2, "CPU:1": 1, "CPU:2": 1, "CPU:3": 1}
    assert ops["Conv2D"] == placed
    assert ops["Conv2DBackpropFilter"] == placed
    assert ops["BiasAddGrad"] == placed


def test_gradients_of_inputs():
    model = zoo.build("dense")
    rows = tf.constant(zoo.rows("dense", 7))
    found = []
    for called in (model, mgpu.make_parallel(model, 3)):
        with tf.GradientTape() as tape:
            tape.watch(rows)
            loss = tf.reduce_sum(called(rows, training=True) ** 2)
        sources = [rows, *(v.value for v in model.trainable_variables)]
        found.append(tape.gradient(loss, sources))
    for one, other in zip(*found, strict=True):
        np.testing.assert_allclose(one, other, 1e-4, 1e-6)


def test_layers_that_are_frozen_stay_as_they_are():
    model = zoo.build("dense")
    first = model.layers[2]
    first.trainable = False
    before = [first.get_weights(), model.layers[3].get_weights()]
    parallel = mgpu.make_parallel(model, 3)
    parallel.compile("sgd", "mse")
    rows = zoo.rows("dense", NUM_ROWS)
    parallel.fit(rows, np.ones((NUM_ROWS, 3)), verbose=0)
    assert np.all(before[0][0] == first.get_weights()[0])
    assert np.any(before[1][0] != model.layers[3].get_weights()[0])


class OwnTrainStep(keras.Model):
    def __init__(self):
        super().__init__()
        self.dense = layers.Dense(1)

    def call(self, inputs):
        return self.dense(inputs)

    def train_step(self, data):
        return {"loss": 0.0}


class AddsLoss(layers.Layer):
    def call(self, inputs):
        self.add_loss(tf.reduce_mean(inputs))
        return inputs


ADDS = "add losses computed from the rows .*`predict` works"


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (OwnTrainStep, "OwnTrainStep overrides train_step, which a parallel model wou"),
        (lambda: of(AddsLoss(), layers.Dense(1)), ADDS),
        (lambda: of(layers.Dense(1, activity_regularizer="l2")), ADDS),
    ],
)
def test_what_would_train_in_another_way_is_refused(make, message):
    model = make()
    rows = zoo.rows("dense", 7)
    parallel = mgpu.make_parallel(model, 2)
    results = parallel.predict(rows, verbose=0)
    np.testing.assert_allclose(results, model.predict(rows, verbose=0), 1e-5)
    parallel.compile("sgd", "mse")
    with pytest.raises(ValueError, match=message):
        parallel.fit(rows, np.ones((7, 1)), verbose=0)
    with pytest.raises(ValueError, match=message):
        parallel.evaluate(rows, np.ones((7, 1)), verbose=0)


def test_the_result_is_not_compiled():
    model = zoo.build("dense")
    model.compile("sgd", "mse")
    parallel = mgpu.make_parallel(model, 2)
    assert not parallel.compiled
    parallel.compile("adam", "mae")
    assert (model.loss, parallel.loss) == ("mse", "mae")


def test_xla_is_never_used():
    parallel = mgpu.make_parallel(zoo.build("dense"), 2)
    assert parallel.jit_compile is False
    parallel.compile("sgd", "mse")
    assert parallel.jit_compile is False
    with pytest.warns(UserWarning, match="Model doesn't support `jit_compile=True`"):
        parallel.compile("sgd", "mse", jit_compile=True)
    assert parallel.jit_compile is False
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        parallel.fit(zoo.rows("dense", 5), np.ones((5, 3)), verbose=0)
