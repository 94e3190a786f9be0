"""How large a batch may be for a GPU's memory, which none of these tests has."""

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy import gpu_memory
from keras_mgpu_strategy.backing_off import BatchSize
from keras_mgpu_strategy.engines.device_memory import Probe, rows_that_fit
from keras_mgpu_strategy.engines.tuning import tune
from keras_mgpu_strategy.feed import Feed
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.types import HostBatch

MIB = 1 << 20


@pytest.mark.parametrize(
    "held, peak, capacity, expected",
    [
        (0, 10 * MIB, 40 * MIB, 128),
        (20 * MIB, 30 * MIB, 40 * MIB, 64),  # the model itself takes room
        (20 * MIB, 35 * MIB, 40 * MIB, 42),
        (20 * MIB, 20 * MIB, 40 * MIB, 32 * 20 * MIB),  # nothing seen to be needed
        (20 * MIB, 45 * MIB, 40 * MIB, 32),  # what fitted, fits
    ],
)
def test_rows_that_fit(held, peak, capacity, expected):
    assert rows_that_fit(32, held, peak, capacity) == expected


CPU = "/job:localhost/replica:0/task:0/device:CPU:0"


def test_no_memory_is_known_of_a_cpu():
    assert Probe(CPU).largest_batch(32) is None


def test_zeros_for_a_cpu_are_not_believed(monkeypatch, a_gpu):
    """What TensorFlow returns with oneDNN; a GPU beside the CPU changes nothing."""
    experimental = tf.config.experimental
    zeros = {"current": 0, "peak": 0}
    monkeypatch.setattr(experimental, "reset_memory_stats", lambda device: None)
    monkeypatch.setattr(experimental, "get_memory_info", lambda device: zeros)
    assert Probe(CPU).largest_batch(32) is None
    assert gpu_memory.capacity("CPU:0") is None


@pytest.fixture
def a_gpu(monkeypatch, tmp_path):
    """Has TensorFlow tell of one GPU, and the driver what a test lets it say."""
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [gpu])
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda gpu: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu_memory.capacity.cache_clear()
    yield tmp_path / "nvidia-smi"
    gpu_memory.capacity.cache_clear()


def test_the_driver_tells_what_a_whole_gpu_has(a_gpu):
    a_gpu.write_text('#!/bin/sh\ncase "$1" in *memory.total) echo 40000;; esac\n')
    a_gpu.chmod(0o755)
    assert gpu_memory.capacity("GPU:0") == 36000 * MIB


def test_a_part_of_a_gpu_has_its_limit(a_gpu, monkeypatch):
    parts = [tf.config.LogicalDeviceConfiguration(memory_limit=n) for n in (100, 200)]
    monkeypatch.setattr(
        tf.config, "get_logical_device_configuration", lambda gpu: parts
    )
    assert gpu_memory.capacity("GPU:1") == 200 * MIB


def test_no_driver_no_capacity(a_gpu):
    assert gpu_memory.capacity("GPU:0") is None


@pytest.mark.parametrize("most, largest", [(None, 8192), (100, 64), (4096, 4096)])
def test_no_batch_is_tried_that_would_not_fit(most, largest):
    rows = np.zeros((400_000, 1), np.float32)
    clock = StageClock(1)
    batch = BatchSize(32, clock)
    asked = []

    def run_chunk(chunk, batch):
        asked.append(batch.on_trial)
        batch.bound(most)
        # Ever faster: seconds do not grow with the rows.
        return HostBatch(chunk.start, np.zeros((chunk.num_rows, 1), np.float32))

    feed = Feed(as_source(rows, steps=None, batch_size=None, input_spec=None), 2**16, 0)
    done = list(tune(run_chunk, feed, batch, 1, clock))
    tried = clock.report().tried_batches
    assert max(tried) <= largest
    assert all(asked) and not batch.on_trial
    assert [result.start for result in done] == np.cumsum(
        [0, *(result.num_rows for result in done)]
    )[:-1].tolist()
