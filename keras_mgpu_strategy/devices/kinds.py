"""What hardware a logical device is, to know whether another one is as fast."""

import functools
import pathlib
import platform
import re

import tensorflow as tf

from keras_mgpu_strategy.system.environment import num_cores


def kind_of(device: str) -> str:
    """The name of a device's hardware; for CPUs also how many cores there are."""
    if "GPU" not in device:
        return f"{_processor()}, {num_cores()} cores"
    gpus = tf.config.get_visible_devices("GPU")
    details = map(tf.config.experimental.get_device_details, gpus)
    return ", ".join(dict.fromkeys(each.get("device_name", "GPU") for each in details))


@functools.cache
def _processor() -> str:
    about = pathlib.Path("/proc/cpuinfo")  # on Linux, where `platform` does not know it
    text = about.read_text(encoding="utf-8") if about.is_file() else ""
    found = re.search(r"^model name\s*: (.+)$", text, re.MULTILINE)
    return found[1] if found else platform.processor() or platform.machine()
