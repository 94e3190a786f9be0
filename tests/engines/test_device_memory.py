"""How large a batch a GPU's memory allows; none of these tests has a GPU."""

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.devices import gpu_memory
from keras_mgpu_strategy.engines.adaptive_batch import (
    BatchSize,
    Limits,
    Plan,
    Probe,
    Reading,
    alone,
    is_out_of_memory,
    largest_batch,
    plan_for,
)
from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.engines.threads import tune
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.report import BackOff, StageClock
from keras_mgpu_strategy.types import HostBatch

MIB = 1 << 20


@pytest.mark.parametrize(
    "needed, free, moved, chunk_batches, held",
    [
        (10, 1000, 10, 15, None),  # each chunk keeps only what is copied
        (100, 1000, 10, 12, None),  # two may compute at a time
        (450, 1000, 10, 1, 2),
        (455, 1000, 10, 1, 1),  # if there is no room for that, one is held
        (450, 1000, 225, 1, 2),
        (455, 1000, 228, 1, 1),  # nor for the rows of a second one
        (200, 1000, 150, 1, 5),
        (950, 1000, 10, 1, 1),  # what fitted once still fits
    ],
)
def test_memory_of_one_micro_batch_decides_how_much_fits(
    needed, free, moved, chunk_batches, held
):
    plan = plan_for(32, Reading(needed * MIB, free * MIB, moved * MIB))
    assert (plan.size, plan.chunk_rows, plan.held) == (32, chunk_batches * 32, held)


def test_there_is_no_limit_if_free_memory_is_unknown():
    assert plan_for(32, Reading(MIB, None, MIB)) == Plan(32)
    assert largest_batch(32, Reading(MIB, None, MIB)) is None


def batch_of(size, **options):
    clock = StageClock(1)
    return BatchSize(size, clock, Limits(), **options), clock


class TestBackingOff:
    """A failure takes ten seconds on a GPU, so there may be two at most."""

    def test_a_batch_that_is_too_large_comes_down_to_what_fits_in_one_step(self):
        batch, clock = batch_of(4096, is_measured=True)
        batch.shrink(batch.plan, 4096, 0, MemoryError())
        assert batch.plan == alone(128)
        batch.learn(batch.plan, Reading(10 * MIB, 200 * MIB, MIB))
        assert batch.plan == alone(1536)  # six tenths of 200 MiB hold 12 times 128
        batch.learn(batch.plan, Reading(120 * MIB, 200 * MIB, MIB))
        assert batch.size == 1536 and not batch.plan.is_measured
        assert clock.report().back_offs == (BackOff(0, 4096, 1536),)

    def test_if_memory_does_not_grow_as_expected_the_small_batch_stays(self):
        batch, clock = batch_of(4096, is_measured=True)
        batch.shrink(batch.plan, 4096, 0, MemoryError())
        batch.learn(batch.plan, Reading(10 * MIB, 200 * MIB, MIB))
        batch.shrink(batch.plan, 1536, 0, MemoryError())
        assert batch.size == 128 and not batch.plan.is_measured
        assert [b.batch_size for b in clock.report().back_offs] == [1536, 128]

    def test_if_free_memory_is_unknown_a_guess_is_tried(self):
        batch, _ = batch_of(4096, is_measured=True)
        batch.shrink(batch.plan, 4096, 0, MemoryError())
        batch.learn(batch.plan, Reading(10 * MIB, None, MIB))
        assert batch.plan == alone(1024)

    def test_the_chunk_shrinks_first(self):
        batch, clock = batch_of(32, is_measured=True)
        batch.learn(batch.plan, Reading(MIB, None, MIB))
        assert batch.plan == Plan(32)
        for held in (2, 1):
            batch.shrink(batch.plan, 320, 0, MemoryError())
            assert batch.plan == alone(32)
            batch.learn(batch.plan, Reading(MIB, None, MIB))
            assert batch.plan == Plan(32, chunk_rows=32, held=held)
        assert clock.report().back_offs == ()

    def test_what_fitted_is_remembered(self):
        limits, clock = Limits(), StageClock(1)
        first = BatchSize(4096, clock, limits, is_measured=True)
        first.shrink(first.plan, 4096, 0, MemoryError())
        first.learn(first.plan, Reading(10 * MIB, 200 * MIB, MIB))
        first.learn(first.plan, Reading(120 * MIB, 200 * MIB, MIB))
        again = BatchSize(4096, clock, limits, is_measured=True)
        assert again.plan == first.plan

    def test_a_size_that_no_longer_fits_is_not_tried_for_ever(self):
        batch, _ = batch_of(4096, is_measured=True)
        batch.shrink(batch.plan, 4096, 0, MemoryError())
        batch.learn(batch.plan, Reading(10 * MIB, 200 * MIB, MIB))
        batch.shrink(batch.plan, 1536, 0, MemoryError())
        assert batch.size == 128 and not batch.plan.is_measured
        for expected in (alone(128), alone(4)):
            batch.shrink(batch.plan, 128, 0, MemoryError())
            assert batch.plan == expected

    def test_an_older_failure_changes_nothing(self):
        batch, _ = batch_of(64)
        plan = batch.plan
        batch.shrink(plan, 64, 0, MemoryError())
        batch.shrink(plan, 64, 0, MemoryError())
        assert batch.size == 32

    def test_copies_that_do_not_fit_count(self):
        text = "Failed copying input tensor: Dst tensor is not initialized."
        assert is_out_of_memory(tf.errors.InternalError(None, None, text))
        assert is_out_of_memory(tf.errors.ResourceExhaustedError(None, None, "OOM"))
        assert not is_out_of_memory(tf.errors.InternalError(None, None, "a bug"))


CPU = "/job:localhost/replica:0/task:0/device:CPU:0"


def test_the_memory_of_a_cpu_is_unknown():
    assert Probe([CPU]).reading(MIB).free is None


def test_zeros_for_a_cpu_are_ignored(monkeypatch, a_gpu):
    """TensorFlow returns them with oneDNN; a GPU next to the CPU changes nothing."""
    experimental = tf.config.experimental
    zeros = {"current": 0, "peak": 0}
    monkeypatch.setattr(experimental, "reset_memory_stats", lambda device: None)
    monkeypatch.setattr(experimental, "get_memory_info", lambda device: zeros)
    assert Probe([CPU]).reading(MIB).free is None
    assert gpu_memory.capacity("CPU:0") is None


@pytest.fixture
def a_gpu(monkeypatch, tmp_path):
    """Makes TensorFlow report one GPU; tests write what the driver reports."""
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "get_visible_devices", lambda kind: [gpu])
    monkeypatch.setattr(tf.config, "get_logical_device_configuration", lambda gpu: None)
    monkeypatch.setenv("PATH", str(tmp_path))
    gpu_memory.capacity.cache_clear()
    yield tmp_path / "nvidia-smi"
    gpu_memory.capacity.cache_clear()


def test_the_driver_reports_the_memory_of_a_whole_gpu(a_gpu):
    a_gpu.write_text('#!/bin/sh\ncase "$1" in *memory.total) echo 40000;; esac\n')
    a_gpu.chmod(0o755)
    assert gpu_memory.capacity("GPU:0") == 36000 * MIB


def test_a_part_of_a_gpu_has_its_limit(a_gpu, monkeypatch):
    parts = [tf.config.LogicalDeviceConfiguration(memory_limit=n) for n in (100, 200)]
    monkeypatch.setattr(
        tf.config, "get_logical_device_configuration", lambda gpu: parts
    )
    assert gpu_memory.capacity("GPU:1") == 200 * MIB


def test_capacity_is_unknown_without_a_driver(a_gpu):
    assert gpu_memory.capacity("GPU:0") is None


@pytest.mark.parametrize("most, largest", [(None, 8192), (100, 64), (4096, 4096)])
def test_no_batch_is_tried_that_would_not_fit(most, largest):
    rows = np.zeros((400_000, 1), np.float32)
    clock = StageClock(1)
    batch = BatchSize(32, clock)

    def run_chunk(chunk, batch):
        batch.most = most
        # Ever faster: seconds do not grow with the rows.
        return HostBatch(chunk.start, np.zeros((chunk.num_rows, 1), np.float32))

    feed = Feed(as_source(rows, steps=None, batch_size=None, input_spec=None), 2**16, 0)
    done = list(tune(run_chunk, feed, batch, 1, clock))
    tried = clock.report().tried_batches
    assert max(tried) <= largest
    assert [result.start for result in done] == np.cumsum(
        [0, *(result.num_rows for result in done)]
    )[:-1].tolist()
