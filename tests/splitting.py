"""Splits of a device in processes where TensorFlow has not started."""

import pytest
import tensorflow as tf

from keras_mgpu_strategy.devices import list_logical, split_devices


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
