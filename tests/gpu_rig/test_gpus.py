"""On devices with their own memory, streams and copies."""

import pytest


@pytest.mark.parametrize("num_gpus", [1, 2, 4])
def test_rows_are_those_of_one_device(on_gpus, num_gpus):
    assert on_gpus("exact", num_gpus, num_gpus=num_gpus) == []


@pytest.mark.parametrize("num_gpus", [1, 2])
def test_every_byte_of_input_crosses_once(on_gpus, num_gpus):
    copied = on_gpus("bytes_in", num_gpus, num_gpus=num_gpus)
    for engine in ("threads", "mirrored"):
        assert copied["input"] <= copied[engine] < 1.1 * copied["input"] + 100_000


def test_copies_run_beside_computing(on_gpus):
    for engine, seconds in on_gpus("overlap", num_gpus=1).items():
        assert seconds > 0.03, engine  # of 0.3 s of computing


def test_files(on_gpus):
    assert on_gpus("files") is True


def test_xla_is_used_only_where_it_is(on_gpus):
    assert "jit_compile=False" in on_gpus("without_xla")


def test_device_memory_does_not_grow(on_gpus):
    for engine, grown in on_gpus("growth", 100).items():
        assert grown <= 2**16, engine
