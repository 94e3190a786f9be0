"""Chunks that wait for earlier ones, so that few results pile up."""

import threading
import time

import pytest

from keras_mgpu_strategy.compute.signatures import SpecMemory
from keras_mgpu_strategy.engines.context import ChunkSizes, Context
from keras_mgpu_strategy.engines.track import Backpressure, Track
from keras_mgpu_strategy.report import StageClock
from tests.helpers import ended, is_waiting

MIB = 1 << 20


def begun(context, *entered):
    """A thread that enters a context and leaves it."""

    def run():
        with context:
            for each in entered:
                each()

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    return thread


def test_results_do_not_pile_up_after_a_late_chunk():
    pressure = Backpressure(lambda: 10)
    with pressure.admitted(0):
        assert ended(begun(pressure.admitted(10)))
        far = begun(pressure.admitted(11))
        assert is_waiting(far)
    assert ended(far)


def test_the_first_chunk_runs_wherever_it_begins():
    pressure = Backpressure(lambda: 0)
    assert ended(begun(pressure.admitted(70)))
    with pressure.admitted(70):
        later = begun(pressure.admitted(80))
        assert is_waiting(later)
        with pressure.admitted(60):  # handed out before, begun after
            time.sleep(0.01)
        assert is_waiting(later)
    assert ended(later)


def test_a_chunk_that_fails_lets_the_others_run():
    pressure = Backpressure(lambda: 0)
    with pytest.raises(KeyError), pressure.admitted(0):
        later = begun(pressure.admitted(1))
        assert is_waiting(later)
        raise KeyError
    assert ended(later)


def test_a_chunk_is_not_overtaken_on_its_device():
    track, order = Track(1), []

    def run(name):
        with track.turn(lambda: None) as turn:
            turn.copy()
            turn.launch()
            order.append(name)

    with track.turn(lambda: None) as busy:
        busy.copy()
        busy.launch()
        threads = []
        for name in ("first", "second", "third"):
            threads.append(threading.Thread(target=run, args=(name,), daemon=True))
            threads[-1].start()
            threads[-1].join(0.1)  # it waits for the busy one
    assert all(map(ended, threads))
    assert order == ["first", "second", "third"]


@pytest.mark.parametrize(
    ("device", "result_bytes", "chunk_rows", "rows_ahead"),
    [
        ("CPU:0", 0, 4096, float("inf")),  # unknown: as much as the input allows
        ("CPU:0", 40, 4096, 8 * MIB // 40 * 8),
        ("CPU:0", 16 * 1024, 512, 512 * 8),  # 8 MiB of results
        ("GPU:0", 16 * 1024, 4096, 4096 * 8),  # 64 MiB, copied
        ("CPU:0", 8 * MIB, 32, 32 * 8),  # never less than a batch
    ],
)
def test_results_bound_chunks(device, result_bytes, chunk_rows, rows_ahead):
    sizes = ChunkSizes(num_replicas=1)
    sizes.record(100, 100 * 1e-7, 100 * result_bytes)
    clock = StageClock(1)
    context = Context((f"/device:{device}",), SpecMemory(), sizes, clock)
    assert context.chunk_rows(32, 4096, None) == chunk_rows
    assert context.most_rows_ahead(32, 4) == rows_ahead
