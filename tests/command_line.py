"""The command line as a user runs it, and files for it."""

import os
import pathlib
import subprocess
import sys

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.cli import command

EXAMPLES = pathlib.Path(__file__).parents[1] / "docs" / "examples"
DIGITS = EXAMPLES / "digits.keras"
IMAGES = EXAMPLES / "digits_images.npy"
LABELS = EXAMPLES / "digits_labels.npy"
MGPU = [sys.executable, "-m", "keras_mgpu_strategy"]


def environment(**variables):
    """This process's environment, without settings for TensorFlow's messages."""
    kept = ("TF_ENABLE_ONEDNN_OPTS",)
    inherited = {
        k: v for k, v in os.environ.items() if k in kept or not k.startswith("TF_")
    }
    return {**inherited, **variables}


def mgpu(*arguments, cwd=None, **variables):
    """Runs the command line in a new process."""
    return subprocess.run(
        [*MGPU, *map(str, arguments)],
        capture_output=True,
        text=True,
        timeout=500,
        cwd=cwd,
        env=environment(**variables),
    )


def mgpu_here(*arguments):
    """Runs a command in this process, in which TensorFlow has started."""
    command.main(command.parse(["mgpu", *map(str, arguments)]))


def predict_here(*arguments):
    """Runs `mgpu predict` in this process."""
    mgpu_here("predict", *arguments)


def assert_bad_input(result, message):
    assert result.returncode == 2, result.stderr
    assert result.stderr.startswith("mgpu: ") and result.stderr.count("\n") == 1
    assert message in result.stderr
    assert result.stdout == ""


def write_photos(folder, count):
    """Writes the first digits as PNG files, named by their index."""
    folder.mkdir()
    images = np.load(IMAGES, mmap_mode="r")[:count]
    for number, image in enumerate(images):
        content = tf.io.encode_png((image * 255).astype(np.uint8)).numpy()
        (folder / f"{number:04d}.png").write_bytes(content)
    return (images * 255).astype(np.uint8).astype(np.float32) / 255
