"""Splits of a device in processes where TensorFlow has not started."""

import pytest
import tensorflow as tf

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.devices.names import list_logical, split_devices
from tests.messages import exactly


def split_by_hand(num_parts):
    (cpu,) = tf.config.list_physical_devices("CPU")
    part = tf.config.LogicalDeviceConfiguration()
    tf.config.set_logical_device_configuration(cpu, [part] * num_parts)


def split_a_whole_device():
    assert split_devices(["CPU:0"], 3) == ("CPU:0", "CPU:1", "CPU:2")
    assert split_devices(["CPU:0"], 3) == list_logical()


def split_what_is_one_part():
    split_by_hand(1)
    assert split_devices(["CPU:0"], 2) == ("CPU:0", "CPU:1")


def split_what_has_other_parts():
    split_by_hand(2)
    with pytest.raises(RuntimeError, match="split into 3 .* but it has 2") as info:
        split_devices(["CPU:0"], 3)
    assert str(info.value.__cause__) == "2 parts are configured"
    assert list_logical() == ("CPU:0", "CPU:1")


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
