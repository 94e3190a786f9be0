"""Layers that draw random numbers in prediction: different ones for every row."""

import itertools

import keras
import numpy as np
import pytest
import tensorflow as tf
import tf_keras

import keras_mgpu_strategy as mgpu

ENGINES = ("threads", "mirrored")
NUM_ROWS = 400
ROWS = np.ones((NUM_ROWS, 64), np.float32)


def model_of(layer, lib=keras):
    return lib.Sequential([lib.Input((64,)), layer])


def active(layer, lib=keras):
    """A layer that is active in prediction too, as in Monte Carlo dropout."""

    class Active(type(layer)):
        def call(self, inputs, training=None):
            return super().call(inputs, training=True)

    return model_of(Active.from_config(layer.get_config()), lib)


class Noise(keras.layers.Layer):
    """Adds what a function draws for the shape."""

    def __init__(self, draw, **kwargs):
        super().__init__(**kwargs)
        self.draw = draw

    def call(self, inputs):
        return inputs + self.draw(tf.shape(inputs))

    def get_config(self):
        return {**super().get_config(), "draw": self.draw}

    @classmethod
    def from_config(cls, config):
        return cls(**config)


class OwnSeed(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.seeds = keras.random.SeedGenerator(5)

    def call(self, inputs):
        first = keras.random.normal(inputs.shape[1:], seed=self.seeds)
        return inputs + first + keras.random.normal(tf.shape(inputs), seed=self.seeds)


class OwnGenerator(keras.layers.Layer):
    def __init__(self, **kwargs):
        super().__init__(**kwargs)
        self.generator = tf.random.Generator.from_seed(5)

    def call(self, inputs):
        return inputs + self.generator.normal(tf.shape(inputs))


KINDS = {
    "dropout": lambda: active(keras.layers.Dropout(0.5, seed=3)),
    "dropout without a seed": lambda: active(keras.layers.Dropout(0.5)),
    "gaussian noise": lambda: active(keras.layers.GaussianNoise(1.0, seed=3)),
    "seed generator": lambda: model_of(OwnSeed()),
    "global seed generator": lambda: model_of(Noise(keras.random.normal)),
    "global generator": lambda: model_of(
        Noise(lambda shape: tf.random.get_global_generator().normal(shape))
    ),
    "generator": lambda: model_of(OwnGenerator()),
    "stateful op": lambda: model_of(Noise(tf.random.normal)),
    "stateful op with a seed": lambda: model_of(
        Noise(lambda shape: tf.random.normal(shape, seed=3))
    ),
    "dropout of tf_keras": lambda: active(tf_keras.layers.Dropout(0.5), tf_keras),
    "seeded dropout of tf_keras": lambda: active(
        tf_keras.layers.Dropout(0.5, seed=3), tf_keras
    ),
    "generator of tf_keras": lambda: active(
        tf_keras.layers.Dropout(0.5, seed=3, rng_type="stateful"), tf_keras
    ),
}
REPRODUCIBLE = ("dropout", "gaussian noise", "seed generator")


def distinct(outputs):
    return len({row.tobytes() for row in outputs})


@pytest.fixture
def fixed_seed():
    """Fixes TensorFlow's global seed, which makes equal graphs draw the same."""
    tf.random.set_seed(7)
    yield
    tf.random.set_seed(None)


@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("kind", KINDS)
def test_equal_rows_get_different_draws(kind, engine, strategies):
    model = KINDS[kind]()
    with strategies[3].scope():
        predictor = mgpu.Predictor(model, engine=engine)
    runs = [predictor.predict(ROWS, 15, verbose=0) for _ in range(2)]
    assert distinct(np.concatenate(runs)) == 2 * NUM_ROWS


@pytest.mark.usefixtures("fixed_seed")
@pytest.mark.parametrize("engine", ENGINES)
@pytest.mark.parametrize("views", [None, ["identity"]])
@pytest.mark.parametrize("kind", ["stateful op", "stateful op with a seed"])
def test_a_global_seed_does_not_make_replicas_equal(kind, views, engine, strategies):
    model = KINDS[kind]()
    with strategies[4].scope():
        predictor = mgpu.Predictor(model, engine=engine, views=views)
    assert distinct(predictor.predict(ROWS, 20, verbose=0)) == NUM_ROWS


def test_models_of_the_scope_draw_different_numbers_too(strategies):
    with strategies[2].scope():
        model = active(keras.layers.Dropout(0.5, seed=3))
    for engine in ENGINES:
        results = mgpu.Predictor(model, engine=engine).predict(ROWS, 10, verbose=0)
        assert distinct(results) == NUM_ROWS


@pytest.mark.parametrize("kind", REPRODUCIBLE)
def test_a_seed_gives_the_same_bits_on_any_number_of_replicas(kind, strategies):
    model = KINDS[kind]()
    runs = []
    for num_replicas, engine in itertools.product((1, 2, 4), ENGINES):
        with strategies[num_replicas].scope():
            predictor = mgpu.Predictor(model, engine=engine)
        runs.append(
            [predictor.predict(ROWS, 5 * num_replicas, verbose=0) for _ in range(2)]
        )
    for run in runs[1:]:
        np.testing.assert_array_equal(run, runs[0])


def test_the_seeds_of_the_model_stay_as_they_are(strategies):
    with strategies[2].scope():
        model = active(keras.layers.Dropout(0.5, seed=3))
    (state,) = model.variables
    before = state.numpy()
    mgpu.Predictor(model).predict(ROWS, 10, verbose=0)
    np.testing.assert_array_equal(state.numpy(), before)


def test_threads_of_one_predictor_draw_different_numbers(strategies):
    """A replica runs one step at a time, since its steps share stand-ins."""
    with strategies[2].scope():
        predictor = mgpu.Predictor(KINDS["dropout"](), in_flight=4)
    results = predictor.predict(np.repeat(ROWS, 10, axis=0), 10, verbose=0)
    assert distinct(results) == 10 * NUM_ROWS


def test_draws_under_xla(strategies):
    with strategies[2].scope():
        predictor = mgpu.Predictor(KINDS["dropout"](), jit_compile=True)
    assert distinct(predictor.predict(ROWS, 10, verbose=0)) == NUM_ROWS


def test_a_resumed_run_draws_what_it_would_have_drawn(strategies, tmp_path):
    whole, resumed = tmp_path / "whole.npy", tmp_path / "resumed.npy"

    def run(path, rows, **options):
        with strategies[2].scope():
            predictor = mgpu.Predictor(KINDS["dropout"]())
        predictor.predict_to(path, rows, 10, 0, method="predict", **options)

    class Broken:
        shape, dtype = ROWS.shape, ROWS.dtype

        def __getitem__(self, rows):
            if rows.stop > 200:
                raise OSError("the disk has gone")
            return ROWS[rows]

    run(whole, ROWS)
    with pytest.raises(OSError, match="the disk has gone"):
        run(resumed, Broken())
    run(resumed, ROWS, resume=True)
    np.testing.assert_array_equal(np.load(resumed), np.load(whole))


@pytest.mark.parametrize("kind", ["dropout", "stateful op with a seed"])
def test_towers_of_a_parallel_model_draw_different_numbers(kind):
    parallel = mgpu.make_parallel(KINDS[kind](), gpu_count=4)
    assert distinct(parallel.predict(ROWS, batch_size=40, verbose=0)) == NUM_ROWS
