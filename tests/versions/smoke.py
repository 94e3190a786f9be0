"""From a saved model to a file of results, with whatever versions are installed.

Sessions of `noxfile.py` run this file; the suite shows the same in other places. No
extra is needed, and `tf.keras` is tf_keras if TF_USE_LEGACY_KERAS is set.
"""

import os
import pathlib
import subprocess
import sys
import warnings

import numpy as np
import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu

keras = tf.keras
EXAMPLES = pathlib.Path(__file__).parents[2] / "docs" / "examples"
BATCH = 8
ROWS = np.random.default_rng(0).random((5 * BATCH + 3, 6), dtype=np.float32)


@pytest.fixture(scope="module")
def model():
    """Compiled and trained, so that its file holds an optimizer with slots."""
    keras.utils.set_random_seed(0)
    inputs = keras.Input((6,))
    hidden = keras.layers.Dense(5, activation="tanh")(inputs)
    hidden = keras.layers.BatchNormalization()(hidden)
    outputs = keras.layers.Dense(3, activation="softmax")(hidden)
    model = keras.Model(inputs, outputs)
    model.compile("adam", "sparse_categorical_crossentropy", metrics=["accuracy"])
    model.fit(ROWS, np.arange(len(ROWS)) % 3, verbose=0)
    return model


@pytest.fixture(scope="module")
def expected(model):
    return model.predict(ROWS, verbose=0)


def assert_close(results, expected):
    np.testing.assert_allclose(results, expected, rtol=1e-5, atol=1e-6)


def mgpu_command(*arguments, cwd=None):
    return subprocess.run(
        [sys.executable, "-m", "keras_mgpu_strategy", *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=300,
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(sys.path)},
    )


@pytest.fixture(scope="module")
def files(model, tmp_path_factory):
    """The same model in every file format, by suffix."""
    folder = tmp_path_factory.mktemp("files")
    model.save(folder / "model.keras")
    model.export(folder / "exported")
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "You are saving your model as an HDF5 file")
        model.save(folder / "model.h5")  # Keras then forgets the optimizer's argument
    return {path.suffix: path for path in folder.iterdir()}


@pytest.mark.parametrize("engine", ["threads", "mirrored"])
@pytest.mark.parametrize("suffix", [".keras", ".h5", ""])
def test_a_saved_model_predicts_the_same(files, expected, strategies, suffix, engine):
    with strategies[3].scope():
        predictor = mgpu.load(files[suffix], engine=engine)
    assert_close(predictor.predict(ROWS, BATCH, verbose=0), expected)
    assert (predictor.predict_classes(ROWS, verbose=0) == expected.argmax(-1)).all()


def test_a_model_without_inputs_is_built_by_its_first_rows(strategies):
    model = keras.Sequential([keras.layers.Dense(3), keras.layers.Dense(2)])
    model.layers[1].build((None, 3))
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    results = predictor.predict(ROWS, BATCH, verbose=0)
    kernel, bias, last, end = predictor.model.get_weights()
    assert_close(results, (ROWS @ kernel + bias) @ last + end)
    np.testing.assert_array_equal(last, model.layers[1].get_weights()[0])


def test_a_rebuilt_model_evaluates_and_trains(model, files, strategies):
    labels = np.arange(len(ROWS)) % 3
    before = model.evaluate(ROWS, labels, verbose=0, return_dict=True)
    # One replica: before Keras 3.7, metrics are those of the first replica alone.
    with strategies[1].scope():
        rebuilt = mgpu.Predictor(model).model
    after = rebuilt.evaluate(ROWS, labels, verbose=0, return_dict=True)
    assert after == pytest.approx(before, rel=1e-4)
    assert type(rebuilt.optimizer) is type(model.optimizer)
    rebuilt.fit(ROWS, labels, batch_size=BATCH, verbose=0)


def test_evaluate_is_that_of_one_device(model, strategies):
    labels = np.arange(len(ROWS)) % 3
    with strategies[3].scope():
        predictor = mgpu.Predictor(model)
    for batch_size in (None, BATCH):
        expected = model.evaluate(ROWS, labels, batch_size, verbose=0)
        received = predictor.evaluate(ROWS, labels, batch_size, verbose=0)
        assert received == pytest.approx(expected, rel=1e-5)


@pytest.mark.parametrize("precision", ["bfloat16", "float16"])
def test_precision(model, expected, strategies, precision):
    with strategies[2].scope():
        predictor = mgpu.Predictor(model, precision=precision)
    results = predictor.predict(ROWS, BATCH, verbose=0)
    assert results.dtype == np.float32
    np.testing.assert_allclose(results, expected, atol=0.05)


@pytest.mark.parametrize("suffix", [".npy", ".csv"])
def test_a_stopped_run_resumes_to_the_same_bytes(
    model, expected, strategies, tmp_path, suffix
):
    def batches(fails=False):
        for start in range(0, len(ROWS), BATCH):
            if fails and start == 4 * BATCH:
                raise OSError("the disk is away")
            yield ROWS[start : start + BATCH]

    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    whole, resumed = tmp_path / f"whole{suffix}", tmp_path / f"resumed{suffix}"
    predictor.predict_to(whole, batches(), batch_size=BATCH)
    with pytest.raises(OSError, match="the disk is away"):
        predictor.predict_to(resumed, batches(fails=True), batch_size=BATCH)
    assert not resumed.exists()
    predictor.predict_to(resumed, batches(), batch_size=BATCH, resume=True)
    assert resumed.read_bytes() == whole.read_bytes()
    if suffix == ".npy":
        assert_close(np.load(resumed), expected)


def test_every_kind_of_input_that_needs_no_extra(model, expected, strategies, tmp_path):
    np.save(tmp_path / "rows.npy", ROWS)
    with strategies[3].scope():
        predictor = mgpu.Predictor(model)
    inputs = {
        "tensor": tf.constant(ROWS),
        "dataset": tf.data.Dataset.from_tensor_slices(ROWS).batch(BATCH),
        "memory map": np.load(tmp_path / "rows.npy", mmap_mode="r"),
        "path": tmp_path / "rows.npy",
        "generator": (ROWS[i : i + BATCH] for i in range(0, len(ROWS), BATCH)),
    }
    for x in inputs.values():
        assert_close(predictor.predict(x, verbose=0), expected)


def test_keras_callbacks_see_every_batch(model, strategies):
    class Counter(keras.callbacks.Callback):
        batches = 0

        def on_predict_batch_end(self, batch, logs=None):
            self.batches += 1

    counter = Counter()
    with strategies[2].scope():
        predictor = mgpu.Predictor(model)
    predictor.predict(ROWS, BATCH, verbose=0, callbacks=[counter])
    assert counter.batches == 6


def test_a_parallel_model_predicts_the_same(model, expected):
    if keras.__name__.startswith("tf_keras"):  # refused, with a remedy
        with pytest.raises(TypeError, match="mgpu.Predictor"):
            mgpu.make_parallel(model, devices=["cpu:0", "cpu:1"])
        return
    parallel = mgpu.make_parallel(model, devices=["cpu:0", "cpu:1"])
    assert_close(parallel.predict(ROWS, batch_size=BATCH, verbose=0), expected)


def test_the_readmes_command(tmp_path):
    images, labels = EXAMPLES / "digits_images.npy", EXAMPLES / "digits_labels.npy"
    result = mgpu_command(
        *("predict", EXAMPLES / "digits.keras", images, f"--labels={labels}"),
        "--output=probabilities.npy",
        cwd=tmp_path,
    )
    assert result.returncode == 0, result.stderr
    assert "accuracy  0.9917" in result.stdout
    assert np.load(tmp_path / "probabilities.npy").shape == (1797, 10)


def test_devices_on_the_command_line():
    result = mgpu_command("devices")
    assert result.returncode == 0, result.stderr
    assert "CPU:0" in result.stdout
