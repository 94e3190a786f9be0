"""Splits devices in processes in which TensorFlow has not started."""

import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from tests.messages import exactly


def scope_splits_a_device_once():
    for _ in range(2):
        with mgpu.scope("cpu", replicas_per_device=2) as strategy:
            assert strategy.num_replicas_in_sync == 2
    with mgpu.scope() as strategy:
        assert strategy.num_replicas_in_sync == 1
    with mgpu.scope("cpu:1") as strategy:
        assert strategy.extended.worker_devices[0].endswith("CPU:1")


def scope_splits_physical_devices():
    message = "There is no device CPU:1 on this machine. Devices that exist: CPU:0."
    with (
        pytest.raises(ValueError, match=exactly(message)),
        mgpu.scope("cpu:1", replicas_per_device=2),
    ):
        pass


def scope_after_the_first_tensor():
    tf.constant(1)
    message = (
        "it has 1, and TensorFlow does not change this .*"
        r"Call scope\(replicas_per_device=2\) before anything else"
    )
    with (
        pytest.raises(RuntimeError, match=message),
        mgpu.scope(replicas_per_device=2),
    ):
        pass
