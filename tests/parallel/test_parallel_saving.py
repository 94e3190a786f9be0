"""What is saved, and what comes back."""

import keras
import numpy as np
import pytest

import keras_mgpu_strategy as mgpu
from tests import children
from tests.conformance import zoo

ROWS = zoo.rows("dense", 11)
TARGETS = np.random.default_rng(0).random((11, 3))


def plain_model():
    """Has only Keras' own layers, so that another process can read it."""
    keras.utils.set_random_seed(0)
    return keras.Sequential(
        [keras.Input((5,)), keras.layers.Dense(8, "relu"), keras.layers.Dense(3)]
    )


@pytest.fixture(scope="module")
def trained():
    parallel = mgpu.make_parallel(plain_model(), 2)
    parallel.compile("adam", "mse", metrics=["mae"])
    parallel.fit(ROWS, TARGETS, 4, verbose=0)
    return parallel


@pytest.fixture(scope="module")
def path(trained, tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "parallel.keras"
    trained.save(path)
    return path


def test_a_saved_model_comes_back_parallel_on_every_device(trained, path):
    loaded = keras.models.load_model(path)
    assert loaded.devices == ("CPU:0", "CPU:1", "CPU:2", "CPU:3")
    assert loaded.name == trained.name
    assert loaded.optimizer.iterations.numpy() == 3
    for model in (trained, loaded):
        model.fit(ROWS, TARGETS, 4, verbose=0, shuffle=False)
    np.testing.assert_allclose(
        loaded.predict(ROWS, verbose=0), trained.predict(ROWS, verbose=0), 1e-5
    )
    scores = [m.evaluate(ROWS, TARGETS, verbose=0) for m in (trained, loaded)]
    np.testing.assert_allclose(*scores, 1e-5)


def test_the_model_within_is_saved_as_the_plain_model_it_is(trained, tmp_path):
    trained.model.save(tmp_path / "plain.keras")
    plain = keras.models.load_model(tmp_path / "plain.keras")
    assert isinstance(plain, keras.Sequential)
    np.testing.assert_allclose(
        plain.predict(ROWS, verbose=0), trained.predict(ROWS, verbose=0), 1e-5
    )


def test_weights_alone(trained, tmp_path):
    trained.save_weights(tmp_path / "some.weights.h5")
    other = mgpu.make_parallel(plain_model(), 3)
    other.load_weights(tmp_path / "some.weights.h5")
    np.testing.assert_allclose(
        other.predict(ROWS, verbose=0), trained.predict(ROWS, verbose=0), 1e-5
    )


def read_on_one_cpu(path):
    """In a process whose CPU is not split."""
    make_parallel = mgpu.make_parallel  # imports the class that the file names
    parallel = keras.models.load_model(path)
    assert parallel.devices == ("CPU:0",)
    message = "gpu_count=2, but this machine has only the devices.*replicas_per_dev"
    with pytest.raises(ValueError, match=message):
        make_parallel(parallel.model, gpu_count=2)


def test_a_machine_with_one_cpu_reads_it_too(path):
    children.run(read_on_one_cpu, path)
