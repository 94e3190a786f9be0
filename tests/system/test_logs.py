"""What the package keeps out of logs, and what it leaves there."""

import logging
import os
import subprocess
import sys
import warnings

import keras
import numpy as np
import pytest
import tf_keras

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.system.messages import without_records


def test_drops_records_by_their_words(caplog):
    logger = logging.getLogger("absl")
    with caplog.at_level("INFO", "absl"):
        with without_records("absl", "no use"):
            logger.warning("of no use: %d", 7)
            logger.warning("of use")
        logger.warning("of no use again")
    assert caplog.messages == ["of use", "of no use again"]


@pytest.mark.parametrize("library", [keras, tf_keras], ids=["keras", "tf_keras"])
def test_a_model_that_was_not_compiled_is_loaded_silently(
    library, strategies, tmp_path, caplog
):
    inputs = library.Input((4,))
    model = library.Model(inputs, library.layers.Dense(2)(inputs))
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the format is an old one
        model.save(tmp_path / "model.h5")
    caplog.clear()
    with strategies[2].scope(), caplog.at_level("INFO"):
        loaded = mgpu.load(tmp_path / "model.h5")
        results = loaded.predict(np.ones((3, 4), "float32"), verbose=0)
    assert results.shape == (3, 2)
    assert not [m for m in caplog.messages if "training configuration" in m]


SCRIPT = """
import sys
sys.ps1 = ">>> "  # TensorFlow then logs as in a notebook, on the standard output
import keras_mgpu_strategy as mgpu
import keras
import tensorflow as tf
try:
    mgpu.load("missing.keras")
except FileNotFoundError as error:
    assert "There is no model at 'missing.keras'" in str(error)
# Possible only as long as TensorFlow has not started its devices.
cpu = tf.config.list_physical_devices("CPU")[0]
parts = [tf.config.LogicalDeviceConfiguration()] * 2
tf.config.set_logical_device_configuration(cpu, parts)
model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
with mgpu.scope():
    mgpu.Predictor(model)
tf.get_logger().info("the logger is on")
"""


def test_no_line_for_each_predictor_and_none_started_for_a_missing_file():
    done = subprocess.run(
        [sys.executable, "-c", SCRIPT],
        env={**os.environ, "CUDA_VISIBLE_DEVICES": ""},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "the logger is on" in done.stdout
    assert "MirroredStrategy" not in done.stdout + done.stderr
