"""Variables whose copies on replicas differ: all replicas use what saving stores."""

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models

ENGINES = ("threads", "mirrored")
LIBRARIES = {"keras": keras, "tf_keras": tf_keras}
RANDOM = np.random.default_rng(0)
ROWS = (RANDOM.normal(size=(60, 6)) * np.linspace(1, 5, 60)[:, None]).astype("f4")
TARGETS = np.arange(60) % 2


def trained(lib, strategy):
    """Each replica saw different rows, so their moving statistics differ."""
    with strategy.scope():
        layers = [lib.Input((6,)), lib.layers.BatchNormalization(), lib.layers.Dense(1)]
        model = lib.Sequential(layers)
        model.compile("sgd", "mse")
    return fit(model)


def fit(model, epochs=5):
    model.fit(ROWS, TARGETS, batch_size=12, epochs=epochs, shuffle=False, verbose=0)
    return model


def copies_of(variable):
    value = variable if isinstance(variable, tf.Variable) else variable.value
    return [copy.numpy() for copy in value.values]


def of_saved(model, lib, folder):
    path = folder / "saved.keras"
    model.save(path)
    return lib.models.load_model(path).predict(ROWS, verbose=0)


def assert_same(results, expected):
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("library", LIBRARIES)
def test_batch_normalization_that_was_trained_in_scope(
    library, engine, strategies, tmp_path
):
    lib = LIBRARIES[library]
    model = trained(lib, strategies[2])
    before = copies_of(model.layers[0].moving_mean)
    assert not np.allclose(before[0], before[1])
    expected = of_saved(model, lib, tmp_path)
    predictor = mgpu.Predictor(model, engine=engine)
    for batch_size in (6, 12):
        assert_same(predictor.predict(ROWS, batch_size, verbose=0), expected)
    np.testing.assert_array_equal(copies_of(model.layers[0].moving_mean), before)
    fit(model)
    now = of_saved(model, lib, tmp_path)
    assert not np.allclose(now, expected, atol=1e-3)
    assert_same(predictor.predict(ROWS, 6, verbose=0), now)


@pytest.mark.parametrize("library", LIBRARIES)
def test_prediction_does_not_disturb_training(library, strategies):
    lib = LIBRARIES[library]
    results = []
    for predicts in (False, True):
        lib.utils.set_random_seed(3)
        model = trained(lib, strategies[2])
        if predicts:
            mgpu.Predictor(model).predict(ROWS, verbose=0)
        results.append(fit(model).get_weights())
    for plain, predicted in zip(*results, strict=True):
        np.testing.assert_array_equal(plain, predicted)


@pytest.mark.parametrize("library", LIBRARIES)
def test_training_between_two_runs_is_noticed(library, strategies, tmp_path):
    """Steps were traced while the copies were equal."""
    lib = LIBRARIES[library]
    model = trained(lib, strategies[2])
    outside = lib.models.clone_model(model)
    outside.compile("sgd", "mse")
    outside.set_weights(model.get_weights())
    with strategies[2].scope():
        predictor = mgpu.Predictor(outside)
    assert_same(predictor.predict(ROWS, 6, verbose=0), of_saved(model, lib, tmp_path))
    fit(predictor.model)
    expected = of_saved(predictor.model, lib, tmp_path)
    assert_same(predictor.predict(ROWS, 6, verbose=0), expected)


@pytest.mark.parametrize("library", LIBRARIES)
def test_a_model_of_another_strategy_is_rebuilt_with_them(
    library, strategies, tmp_path
):
    lib = LIBRARIES[library]
    model = trained(lib, strategies[2])
    expected = of_saved(model, lib, tmp_path)
    for num_replicas in (1, 3):
        with strategies[num_replicas].scope():
            assert_same(mgpu.Predictor(model).predict(ROWS, verbose=0), expected)


def test_the_digest_is_that_of_the_saved_model(strategies, tmp_path):
    model = trained(tf_keras, strategies[2])
    model.save(tmp_path / "saved.keras")
    digests = {
        models.digest(models.replicate(model, strategies[2])),
        models.digest(models.replicate(model, strategies[1])),
        models.digest(models.read(tmp_path / "saved.keras", strategies[3])),
    }
    assert len(digests) == 1


class Counting(keras.layers.Layer):
    """Adds a variable of any kind, tracked by Keras or hidden from it."""

    def __init__(self, synchronization, aggregation, holds, hidden, **kwargs):
        super().__init__(**kwargs)
        self.settings = (synchronization, aggregation, holds, hidden)
        if hidden:
            self.box = {
                "total": tf.Variable(
                    np.zeros(3, holds),
                    trainable=False,
                    synchronization=tf.VariableSynchronization[synchronization],
                    aggregation=tf.VariableAggregation[aggregation],
                )
            }
        else:
            self.total = keras.Variable(
                np.zeros(3, holds),
                trainable=False,
                synchronization=synchronization.lower(),
                aggregation=aggregation.lower(),
            )

    @property
    def variable(self):
        return self.box["total"] if self.settings[-1] else self.total.value

    def call(self, inputs):
        return inputs + tf.cast(self.variable, inputs.dtype)

    def get_config(self):
        names = ("synchronization", "aggregation", "holds", "hidden")
        return {
            **super().get_config(),
            **dict(zip(names, self.settings, strict=True)),
        }


AGGREGATES = {
    ("ON_READ", "MEAN", "float32"): 2.5,
    ("ON_READ", "SUM", "float32"): 5.0,
    ("ON_READ", "SUM", "int64"): 5.0,
    ("ON_READ", "ONLY_FIRST_REPLICA", "float32"): 1.0,
    ("AUTO", "NONE", "float32"): 1.0,
}


@pytest.mark.parametrize("hidden", [False, True])
@pytest.mark.parametrize("kind", AGGREGATES)
def test_variables_of_any_kind(kind, hidden, strategies):
    rows = np.zeros((20, 3), np.float32)
    with strategies[2].scope():
        layer = Counting(*kind, hidden)
        model = keras.Sequential([keras.Input((3,)), layer])
    predictors = [mgpu.Predictor(model, engine=engine) for engine in ENGINES]
    for predictor in predictors:
        assert not predictor.predict(rows, 4, verbose=0).any()
    for copy, value in zip(layer.variable.values, (1, 4), strict=True):
        copy.assign(np.full(3, value, kind[-1]))
    with strategies[3].scope():
        predictors.append(mgpu.Predictor(model))
    for predictor in predictors:
        results = predictor.predict(rows, 4, verbose=0)
        np.testing.assert_array_equal(results, np.full((20, 3), AGGREGATES[kind]))


def test_large_variables_are_compared_separately(strategies, monkeypatch):
    monkeypatch.setattr(models.stand_ins, "_MOST_BYTES", 20)
    with strategies[2].scope():
        layers = [keras.layers.BatchNormalization() for _ in range(3)]
        model = keras.Sequential([keras.Input((6,)), *layers])
    predictor = mgpu.Predictor(model)
    predictor.predict(ROWS, verbose=0)
    layers[1].moving_mean.value.values[1].assign(np.ones(6, "f4"))
    expected = predictor.predict(ROWS[:4], 4, verbose=0)
    assert_same(predictor.predict(ROWS, 4, verbose=0)[:4], expected)
    pinned = models.PinnedValues(model.variables)
    pinned.refresh()
    assert len(pinned.handles) == 2
