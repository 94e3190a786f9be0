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
    for engine, share in on_gpus("overlap", num_gpus=1).items():
        assert share > 0.5, engine  # 0.9 on a machine with nothing else to do


def test_files(on_gpus):
    assert on_gpus("files") is True


def test_xla_is_used_only_where_it_is(on_gpus):
    assert "jit_compile=False" in on_gpus("without_xla")


def test_device_memory_does_not_grow(on_gpus):
    for engine, grown in on_gpus("growth", 100).items():
        assert grown <= 2**16, engine


ENGINES = pytest.mark.parametrize("engine", ["threads", "mirrored"])


class TestOutOfMemory:
    """An allocation that fails has waited ten seconds, so few may fail."""

    @ENGINES
    def test_by_a_batch_of_rows(self, on_gpus, engine):
        ran = on_gpus("large_inputs", engine, num_gpus=1)
        assert ran["exact"]
        assert 0 < len(ran["first"]) <= 2 and ran["second"] == []
        assert ran["first_seconds"] < 30

    @ENGINES
    def test_by_results_of_several_batches(self, on_gpus, engine):
        ran = on_gpus("large_outputs", engine, num_gpus=1)
        assert ran["exact"]
        assert ran["first"] == ran["second"] == []  # the chunk shrinks, not the batch
        assert ran["second_seconds"] < 10


@ENGINES
@pytest.mark.parametrize(
    ("milliseconds", "bound"),
    [
        ((20, 5, 0), "transfer"),
        ((0, 5, 20), "transfer"),
        ((5, 20, 0), "compute"),
        ((0, 20, 5), "compute"),
    ],
)
def test_the_report_tells_copies_from_computing(on_gpus, engine, milliseconds, bound):
    found, shares = on_gpus("bounds", engine, *milliseconds, num_gpus=1)
    assert found == bound, shares
    into, _, out = milliseconds
    if bound == "transfer":
        larger, other = ("copy_in", "copy_out")[:: 1 if into > out else -1]
        assert shares[larger] > 0.4 > shares[other]


def test_other_threads_of_the_program_run_on(on_gpus):
    assert on_gpus("other_threads_run", num_gpus=2) < 0.2  # a batch takes 0.3 s


@ENGINES
def test_the_rows_of_a_run_are_freed_with_it(on_gpus, engine):
    assert on_gpus("freed", engine)
