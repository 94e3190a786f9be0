import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.devices import gpu_memory
from keras_mgpu_strategy.devices import names as devices
from keras_mgpu_strategy.devices.names import (
    DeviceRequest,
    parse_devices,
    select_devices,
    select_parts,
)
from tests.messages import exactly

GPU, CPU = DeviceRequest("GPU"), DeviceRequest("CPU")
GPU0, GPU1, GPU12 = (DeviceRequest("GPU", index) for index in (0, 1, 12))
CPU0 = DeviceRequest("CPU", 0)

BOX = ("GPU:0", "GPU:1", "CPU:0")


@pytest.mark.parametrize(
    ("written", "expected"),
    [
        ("gpu:0", (GPU0,)),
        ("cpu:0", (CPU0,)),
        ("GPU:0", (GPU0,)),
        ("/gpu:12", (GPU12,)),
        ("/device:GPU:1", (GPU1,)),
        ("/physical_device:CPU:0", (CPU0,)),
        ("/job:localhost/replica:0/task:0/device:GPU:0", (GPU0,)),
        ("gpu:1, cpu:0", (GPU1, CPU0)),
        ("gpu", (GPU,)),
        ("CPU", (CPU,)),
        (["gpu:1", "gpu:0"], (GPU1, GPU0)),
        (["gpu:0,gpu:1", 12], (GPU0, GPU1, GPU12)),
        (("cpu:0",), (CPU0,)),
        (0, (GPU0,)),
        ([0, 1], (GPU0, GPU1)),
        (range(2), (GPU0, GPU1)),
        (np.int64(1), (GPU1,)),
        (None, None),
    ],
)
def test_devices_are_read(written, expected):
    assert parse_devices(written) == expected


@pytest.mark.parametrize(
    ("written", "error", "message"),
    [
        ("tpu:0", ValueError, r"Unknown device 'tpu:0'. Expected names like"),
        ("gpu:-1", ValueError, r"Unknown device 'gpu:-1'"),
        ("gpu:0,", ValueError, r"Unknown device ''"),
        ("gpu:x", ValueError, r"Unknown device 'gpu:x'"),
        ("", ValueError, r"Unknown device ''"),
        ([], ValueError, r"devices=\[\] names no device"),
        (-1, ValueError, r"given as -1. Expected names"),
        ([0, -2], ValueError, r"given as -2. Expected names"),
        (True, TypeError, r"given as True of type bool. Expected names"),
        ([False], TypeError, r"given as False of type bool"),
        (1.0, TypeError, r"given as 1.0 of type float"),
        (b"gpu:0", TypeError, r"given as b'gpu:0' of type bytes"),
        ([None], TypeError, r"given as None of type NoneType"),
        ({"gpu:0": 1}, TypeError, r"of type dict"),
        (np.arange(2), TypeError, r"of type ndarray"),
    ],
)
def test_unreadable_devices_are_refused(written, error, message):
    with pytest.raises(error, match=message):
        parse_devices(written)


@pytest.mark.parametrize(
    ("written", "existing", "expected"),
    [
        (None, BOX, ("GPU:0", "GPU:1")),
        (None, ("CPU:0", "CPU:1"), ("CPU:0",)),
        ("gpu", BOX, ("GPU:0", "GPU:1")),
        ("cpu", ("CPU:0", "CPU:1"), ("CPU:0", "CPU:1")),
        ("cpu:0,gpu:1", BOX, ("CPU:0", "GPU:1")),
        ([1, 0], BOX, ("GPU:1", "GPU:0")),
    ],
)
def test_devices_are_selected_in_the_order_given(written, existing, expected):
    assert select_devices(parse_devices(written), existing) == expected


@pytest.mark.parametrize(
    ("written", "existing", "message"),
    [
        ("gpu:2", BOX, "no device GPU:2 .* exist: GPU:0, GPU:1, CPU:0."),
        (7, BOX, "no device GPU:7 "),
        ("cpu:0,cpu:1", BOX, "no device CPU:1 "),
        ("gpu", ("CPU:0",), "no device GPU on this machine. Devices that exist: CPU:0"),
        ("gpu:0,gpu:0", BOX, "more than once: GPU:0. Name each device once"),
        ("gpu,gpu:1", BOX, "more than once: GPU:1"),
        ([0, "/gpu:0"], BOX, "more than once: GPU:0"),
    ],
)
def test_missing_and_repeated_devices_are_refused(written, existing, message):
    with pytest.raises(ValueError, match=message):
        select_devices(parse_devices(written), existing)


def test_every_repeated_device_is_named():
    message = (
        "Devices asked for more than once: GPU:0, GPU:1. Name each device once; for "
        "several replicas on one device use replicas_per_device."
    )
    with pytest.raises(ValueError, match=exactly(message)):
        select_devices(parse_devices("gpu:1,gpu:0,cpu:0,gpu:0,gpu:1"), BOX)


def test_devices_have_short_names_gpus_first():
    found = [
        tf.config.PhysicalDevice("/physical_device:CPU:0", "CPU"),
        tf.config.LogicalDevice("/device:GPU:1", "GPU"),
        tf.config.PhysicalDevice("/physical_device:XLA_CPU:0", "XLA_CPU"),
        tf.config.LogicalDevice("/job:localhost/replica:0/task:0/device:GPU:12", "GPU"),
    ]
    named = devices.by_name(found)
    assert list(named.items()) == [
        ("GPU:1", found[1]),
        ("GPU:12", found[3]),
        ("CPU:0", found[0]),
    ]


def test_devices_of_this_machine_are_listed():
    assert devices.list_logical() == ("CPU:0", "CPU:1", "CPU:2", "CPU:3")
    assert devices.list_physical() == ("CPU:0",)


def test_devices_that_are_split_already_are_kept():
    parts = devices.split_devices(["CPU:0"], 4)
    assert parts == ("CPU:0", "CPU:1", "CPU:2", "CPU:3")


def test_a_split_after_tensorflow_has_started_is_refused():
    tf.constant(0)
    message = (
        "replicas_per_device=3 needs CPU:0 split into 3 logical devices, but it has 4, "
        "and TensorFlow does not change this once it has started. Call "
        "scope(replicas_per_device=3) before anything else that uses TensorFlow "
        "(before the first tensor, layer or model), in a new process."
    )
    with pytest.raises(RuntimeError, match=exactly(message)) as info:
        devices.split_devices(["CPU:0"], 3)
    assert str(info.value.__cause__) == "4 parts are configured"


PARTS = ("GPU:0", "GPU:1", "GPU:2", "GPU:3", "CPU:0", "CPU:1")


@pytest.mark.parametrize(
    ("names", "counts", "expected"),
    [
        (["CPU:0"], {"CPU:0": 2}, ("CPU:0", "CPU:1")),
        (["GPU:1"], {"GPU:0": 2, "GPU:1": 2}, ("GPU:2", "GPU:3")),
        (["GPU:1"], {"GPU:0": 1, "GPU:1": 2}, ("GPU:1", "GPU:2")),
        (["GPU:2"], {"GPU:0": 1, "GPU:1": 1, "GPU:2": 2}, ("GPU:2", "GPU:3")),
        # In the order asked for; each kind is counted separately.
        (
            ["CPU:0", "GPU:1", "GPU:0"],
            {"GPU:0": 2, "GPU:1": 2, "CPU:0": 2},
            ("CPU:0", "CPU:1", "GPU:2", "GPU:3", "GPU:0", "GPU:1"),
        ),
    ],
)
def test_parts_are_numbered_over_all_devices_of_a_kind(names, counts, expected):
    assert select_parts(names, 2, counts, PARTS) == expected


@pytest.mark.parametrize(
    ("counts", "existing"),
    [
        ({"GPU:0": 2, "GPU:1": 2}, ("GPU:0", "GPU:1", "GPU:2")),
        ({"GPU:0": 2, "GPU:1": 1}, ("GPU:0", "GPU:1", "GPU:2")),
        ({"GPU:0": 3, "GPU:1": 2}, ("GPU:0", "GPU:1", "GPU:2", "GPU:3", "GPU:4")),
    ],
)
def test_devices_with_another_number_of_parts_are_refused(counts, existing):
    message = (
        "TensorFlow did not split GPU:0, GPU:1 into 2 logical devices each; it has "
        f"{', '.join(existing)}."
    )
    with pytest.raises(RuntimeError, match=exactly(message)):
        select_parts(["GPU:0", "GPU:1"], 2, counts, existing)


def test_each_part_gets_its_share_of_the_least_free_memory():
    assert gpu_memory.limit_from_report("80000\n40000\n", num_parts=1) == 36000
    assert gpu_memory.limit_from_report("80000\n40000\n", num_parts=4) == 9000


@pytest.mark.parametrize("report", ["", "80000\n[N/A]\n"])
def test_unknown_gpu_memory_is_an_error(report):
    with pytest.raises(RuntimeError, match="expected one number per GPU .* by hand"):
        gpu_memory.limit_from_report(report, num_parts=2)


@pytest.mark.parametrize(
    "name", ["/job:localhost/replica:0/task:0/device:GPU:1", "GPU:1"]
)
def test_full_names_become_short(name):
    assert devices.short_name(name) == "GPU:1"
