"""What `jit_compile="auto"` chooses, on a machine whose GPUs XLA supports."""

import keras
import numpy as np
import pytest
import tensorflow as tf
from tensorflow.python.framework import config

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy import models
from keras_mgpu_strategy.engines.local import LocalBackend
from keras_mgpu_strategy.models import xla

GPUS = ("/job:localhost/replica:0/task:0/device:GPU:0",)
CPUS = ("/job:localhost/replica:0/task:0/device:CPU:0",)


class WithoutXla(keras.layers.Layer):
    """Says that XLA cannot compile it."""

    def __init__(self):
        super().__init__()
        self.supports_jit = False

    def call(self, inputs):
        return inputs + 1.0


def dense(*more):
    return keras.Sequential([keras.Input((4,)), keras.layers.Dense(2), *more])


def compiled(jit_compile):
    model = dense()
    model.compile(loss="mse", jit_compile=jit_compile)
    return model


@pytest.fixture
def choices(strategies, monkeypatch):
    """The choices for a model if XLA works on the GPUs, as on NVIDIA's."""
    monkeypatch.setattr(xla, "works_on", lambda device: True)
    return lambda model, devices: models.step_choices(
        models.replicate(model, strategies[1]), devices
    )


WITH_XLA = (("xla", "plain", "frozen"), ("plain", "frozen", "xla"))
WITHOUT = (("plain", "frozen"), ("plain", "frozen"))


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (dense, WITH_XLA),
        (lambda: compiled(True), WITH_XLA),
        (lambda: compiled(False), WITHOUT),
        (lambda: dense(WithoutXla()), WITHOUT),
    ],
)
def test_a_run_begins_with_xla_on_gpus_if_it_may_be_used(make, expected, choices):
    model = make()
    assert (choices(model, GPUS), choices(model, CPUS)) == expected
    assert choices(model, GPUS + CPUS) == ("plain", "frozen")


def test_nothing_is_tried_if_ops_must_be_deterministic(choices):
    tf.config.experimental.enable_op_determinism()
    try:
        for devices in (GPUS, CPUS):
            assert choices(dense(), devices) == ("plain",)
    finally:
        config.disable_op_determinism()  # which has no public name


@pytest.mark.parametrize(
    ("details", "works"),
    [({"compute_capability": (8, 0)}, True), ({"device_name": "METAL"}, False)],
)
def test_it_is_tried_on_gpus_that_report_their_capability(details, works, monkeypatch):
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    monkeypatch.setattr(
        tf.config.experimental, "get_device_details", lambda gpu: details
    )
    xla.works_on.cache_clear()
    assert xla.works_on("CPU:0") is works  # which has a compiler
    xla.works_on.cache_clear()


def test_predict_proba_can_turn_it_off(monkeypatch):
    used = []
    fitted = LocalBackend.fitted

    def watched(self, context):
        context = fitted(self, context)
        used.append(context.step)
        return context

    monkeypatch.setattr(LocalBackend, "fitted", watched)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2, "softmax")])
    rows = np.random.default_rng(0).random((9, 4), np.float32)
    results = [
        mgpu.predict_proba(model, rows, 4, 0, jit_compile=choice)
        for choice in (True, False, "auto")
    ]
    assert used == ["xla", "plain", "plain"]
    for result in results:
        np.testing.assert_allclose(result, model(rows), rtol=1e-5, atol=1e-6)
