"""One pipeline per replica: who gets which chunk."""

import threading

import numpy as np
import pytest

from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.engines.pipelines import ReplicaPipelines
from keras_mgpu_strategy.inputs import as_source


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 4])
def test_chunks_are_dealt_in_turn(num_replicas, strategies):
    strategy = strategies[num_replicas]
    source = as_source(np.arange(54, dtype=np.float32).reshape(27, 2))
    pipelines = ReplicaPipelines(Feed(source, 4), source.spec, 2, lambda: 4, strategy)
    elements = iter(pipelines.dataset)
    expected = [(4 * index, min(27 - 4 * index, 4)) for index in range(7)]
    while expected:
        start, num_rows, rows = map(strategy.experimental_local_results, next(elements))
        dealt, expected = expected[:num_replicas], expected[num_replicas:]
        for replica, (first, count) in enumerate(dealt):
            assert (int(start[replica]), int(num_rows[replica])) == (first, count)
            np.testing.assert_array_equal(
                rows[replica][:count, 0], np.arange(first, first + count) * 2
            )
            assert len(rows[replica]) % 2 == 0
        assert all(int(idle) == -1 for idle in start[len(dealt) :])


def test_a_slow_source_holds_no_dealt_chunk_back(strategies):
    is_waiting, go_on = threading.Event(), threading.Event()

    def batches():
        yield np.zeros((4, 2), np.float32)
        yield np.ones((4, 2), np.float32)
        is_waiting.set()
        go_on.wait()

    source = as_source(batches())
    pipelines = ReplicaPipelines(
        Feed(source, 4), source.spec, 2, lambda: 4, strategies[2]
    )
    starts = []
    ahead = threading.Thread(
        target=lambda: starts.extend(pipelines.take(0)[0] for _ in range(2))
    )
    ahead.start()
    is_waiting.wait()
    behind = threading.Thread(target=lambda: starts.append(pipelines.take(1)[0]))
    behind.start()
    behind.join(30)
    assert starts == [0, 4]
    go_on.set()
    ahead.join()
    assert starts == [0, 4, -1]
