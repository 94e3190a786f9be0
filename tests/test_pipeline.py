"""One pipeline per replica: who gets which chunk."""

import numpy as np
import pytest

from keras_mgpu_strategy.feed import Feed
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.pipeline import ReplicaPipelines


@pytest.mark.parametrize("num_replicas", [1, 2, 3, 4])
def test_chunks_are_dealt_in_turn(num_replicas, strategies):
    strategy = strategies[num_replicas]
    source = as_source(np.arange(54, dtype=np.float32).reshape(27, 2))
    pipelines = ReplicaPipelines(Feed(source, 4), source.spec, 2, 4, strategy)
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
