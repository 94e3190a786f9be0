"""Frozen steps: they never outlive their weights, and not every model is frozen."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.compute import freezing
from keras_mgpu_strategy.runs.tuning import Found, TuningFile
from tests import helpers

ENGINES = ["threads", "mirrored"]
ROWS = helpers.numbered_rows(40, num_columns=4) / 40


def model_of(*layers, **settings):
    return keras.Sequential([keras.Input((4,), **settings), *layers])


def normalized(*more):
    return model_of(
        keras.layers.Dense(8, "relu"),
        keras.layers.BatchNormalization(),
        *more,
        keras.layers.Dense(3),
    )


def recurrent():
    """Has functions in its graph, for the loop of the LSTM."""
    return normalized(keras.layers.Reshape((4, 2)), keras.layers.LSTM(5))


def on(strategy, model, **options):
    with strategy.scope():
        return mgpu.Predictor(model, compile="frozen", **options)


def assert_same(predictor, model):
    found = predictor.predict(ROWS, 8, verbose=0)
    # On one device: a model of several cannot read all rows at once.
    np.testing.assert_allclose(found, model(ROWS), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("make", "num_replicas"), [(normalized, 1), (recurrent, 2)])
def test_weights_that_change_are_noticed(make, num_replicas, engine, strategies):
    with strategies[num_replicas].scope():
        model = make()
        model.compile("sgd", "mse")
    predictor = on(strategies[num_replicas], model, engine=engine)
    assert predictor.model is model
    assert_same(predictor, model)
    model.set_weights([w + 0.5 for w in model.get_weights()])
    assert_same(predictor, model)
    model.layers[1].moving_mean.assign(np.arange(8.0))
    assert_same(predictor, model)
    model.layers[0].bias.assign_add(np.ones(8))
    assert_same(predictor, model)


def test_the_weights_of_a_run_that_trains_are_noticed(strategies):
    model = model_of(*normalized().layers, keras.layers.Softmax())
    model.compile("sgd", "mse")
    before = mgpu.predict_proba(model, ROWS, 8, 0, compile="frozen")
    model.fit(ROWS, np.eye(3)[[0] * 40], epochs=20, verbose=0)
    after = mgpu.predict_proba(model, ROWS, 8, 0, compile="frozen")
    assert np.abs(after - before).max() > 1e-3
    np.testing.assert_allclose(after, model(ROWS), rtol=1e-5, atol=1e-6)


def test_steps_are_kept_while_weights_stay(strategies, monkeypatch):
    made = []
    frozen = freezing._frozen

    def counted(step):
        made.append(step)
        return frozen(step)

    monkeypatch.setattr(freezing, "_frozen", counted)
    model = normalized()
    predictor = on(strategies[2], model)
    for _ in range(3):
        assert_same(predictor, model)
    assert len(made) == 1  # for both replicas
    predictor.model.layers[0].bias.assign_add(np.ones(8))
    for _ in range(2):
        predictor.predict(ROWS, 8, verbose=0)
    assert len(made) == 2


def drawing():
    class Always(keras.layers.Dropout):
        def call(self, inputs, training=True):
            return super().call(inputs, training=True)

    return model_of(Always(0.5))


def drawing_by_an_op():
    return model_of(keras.layers.Lambda(lambda x: x + tf.random.normal([1, 4])))


def writing():
    class Counts(keras.layers.Layer):
        def build(self, shape):
            self.calls = self.add_weight(shape=(), initializer="zeros", name="calls")

        def call(self, inputs):
            self.calls.assign_add(1.0)
            return inputs

    return model_of(Counts())


def of_words():
    words = keras.layers.StringLookup(vocabulary=["a", "b"], output_mode="one_hot")
    return model_of(words, dtype="string")


def of_python():
    def twice(x):
        return tf.ensure_shape(tf.py_function(lambda y: y * 2, [x], x.dtype), x.shape)

    return model_of(keras.layers.Lambda(twice, output_shape=(4,)))


def printing():
    def shown(x):
        tf.debugging.assert_less(x, 5.0)
        return tf.identity(x)

    return model_of(keras.layers.Lambda(shown, output_shape=(4,)))


def recurrent_of_tf_keras():
    """Has other functions in its graph, for cuDNN and for gradients."""
    layers = tf_keras.layers
    return tf_keras.Sequential(
        [tf_keras.Input((4,)), layers.Reshape((4, 1)), layers.LSTM(5)]
    )


def reading_by_handle():
    class Reads(keras.layers.Layer):
        def build(self, shape):
            self.scale = self.add_weight(shape=(), initializer="ones")

        def call(self, inputs):
            local = tf.distribute.get_strategy().experimental_local_results
            handle = local(self.scale.value)[0].handle
            return inputs * tf.raw_ops.ReadVariableOp(resource=handle, dtype="float32")

    return model_of(Reads())


REFUSED = [
    (reading_by_handle, "it reads resources by their handles"),
    (recurrent_of_tf_keras, "it does more than compute, by the op CudnnRNN.*"),
    (drawing, "it draws random numbers"),
    (drawing_by_an_op, "it draws random numbers"),
    (writing, "it writes variables"),
    (of_words, "it looks words up in a table"),
    (of_python, "it calls Python"),
    (printing, "it does more than compute, by the op Assert"),
]


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize(("make", "reason"), REFUSED)
def test_what_cannot_be_frozen(make, reason, engine, strategies):
    predictor = on(strategies[2], make(), engine=engine)
    rows = np.full((9, 4), "a") if make is of_words else ROWS
    message = f"The model cannot be frozen: {reason}. Pass compile=.plain"
    with helpers.no_thread_left(), pytest.raises(ValueError, match=message):
        predictor.predict(rows, 4, verbose=0)


def test_moving_statistics_that_differ(strategies):
    with strategies[2].scope():
        model = normalized()
    predictor = on(strategies[2], model)
    assert_same(predictor, model)
    copies = strategies[2].experimental_local_results(model.layers[1].moving_mean.value)
    copies[1].assign(np.ones(8))
    with pytest.raises(ValueError, match="its moving statistics differ between"):
        predictor.predict(ROWS, 8, verbose=0)


def test_a_choice_that_can_no_longer_be_frozen_runs_plain(
    strategies, tmp_path, monkeypatch
):
    """As after `fit`, which makes replicas' moving statistics differ."""
    monkeypatch.setattr(TuningFile, "find", lambda *_: Found("frozen", None, 100.0))
    with strategies[2].scope():
        model = normalized()
        predictor = mgpu.Predictor(model, tuning=tmp_path / "tuned.json")
    assert_same(predictor, model)
    assert predictor.report.step == "frozen"
    copies = strategies[2].experimental_local_results(model.layers[1].moving_mean.value)
    copies[1].assign(np.full(8, 2.0))
    found = predictor.predict(ROWS, 8, verbose=0)
    with strategies[2].scope():
        plain = mgpu.Predictor(model, compile="plain")
    np.testing.assert_array_equal(found, plain.predict(ROWS, 8, verbose=0))


def test_weights_that_change_and_change_back():
    """Within a run; one of its steps is made in between."""
    weight = tf.Variable(1.0)
    double = tf.function(lambda x: 2 * weight * x, autograph=False)
    traced = double.get_concrete_function(tf.TensorSpec([8]))
    steps = freezing.FrozenSteps()
    steps.step("before", traced, ())
    weight.assign(3.0)
    steps.step("between", traced, ())
    weight.assign(1.0)
    steps.begin_run()
    assert steps.check()
    steps.begin_run()
    assert not steps.check()


def test_more_weights_than_a_graph_holds(strategies, monkeypatch):
    monkeypatch.setattr(freezing, "_MOST_BYTES", 100)
    message = "its 0.0 GB of weights exceed the 2 GB of a graph"
    with pytest.raises(ValueError, match=message):
        on(strategies[1], normalized()).predict(ROWS, 8, verbose=0)


def test_a_graph_that_tensorflow_cannot_convert(strategies, monkeypatch):
    def fail(step):
        raise NotImplementedError("no such op")

    monkeypatch.setattr(freezing, "_frozen", fail)
    message = "cannot be frozen: NotImplementedError: no such op\nPass compile=.plain"
    with pytest.raises(ValueError, match=message):
        on(strategies[1], normalized()).predict(ROWS, 8, verbose=0)


def hidden():
    class Shifted(keras.layers.Layer):
        def build(self, shape):
            self.kept = {"shift": tf.Variable(tf.ones(shape[1:]))}  # not tracked

        def call(self, inputs):
            return inputs + tf.cast(self.kept["shift"], inputs.dtype)

    return model_of(Shifted(), keras.layers.Dense(3))


def of_tf_keras():
    layers = tf_keras.layers
    inner = [layers.Dense(8), layers.BatchNormalization(), layers.Dense(3)]
    return tf_keras.Sequential([tf_keras.Input((4,)), *inner])


@pytest.mark.parametrize("make", [normalized, recurrent, hidden, of_tf_keras])
@pytest.mark.parametrize(
    ("options", "tolerance"),
    [({}, 1e-5), ({"precision": "float16"}, 1e-2), ({"output_dtype": "float64"}, 1e-5)],
)
def test_models_of_all_kinds(make, options, tolerance, strategies):
    model = make()
    random = np.random.default_rng(5)
    model.set_weights([random.random(w.shape) / 4 for w in model.get_weights()])
    found = on(strategies[2], model, **options).predict(ROWS, 8, verbose=0)
    np.testing.assert_allclose(found, model(ROWS), rtol=tolerance, atol=tolerance)


def test_a_saved_model(strategies, tmp_path):
    model = recurrent()
    model.export(tmp_path / "saved", verbose=False)
    for name in (None, "output_0"):
        with strategies[2].scope():
            loaded = mgpu.load(tmp_path / "saved", compile="frozen", outputs=name)
        found = loaded.predict(ROWS, 8, verbose=0)
        np.testing.assert_allclose(found, model(ROWS), rtol=1e-5, atol=1e-6)
