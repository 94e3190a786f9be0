"""A row within a chunk that cannot be run, as when other processes read the rows."""

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import SpecMemory
from keras_mgpu_strategy.engines.context import ChunkSizes, Context
from keras_mgpu_strategy.engines.interface import StoppedWithin
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.types import HostBatch
from tests import helpers

BATCH = 4


class Doubles:
    """Runs rows up to the first of its bad rows."""

    def __init__(self, *bad_rows):
        self._bad_rows = bad_rows

    def begin_run(self):
        """Nothing to agree on."""

    def run(self, chunk, batch, replica, track):
        stop = chunk.start + chunk.num_rows
        bad = [row for row in self._bad_rows if chunk.start <= row < stop]
        good_rows = bad[0] - chunk.start if bad else chunk.num_rows
        results = HostBatch(chunk.start, 2 * chunk.inputs[:good_rows])
        if not bad:
            return results
        error = LookupError(f"row {bad[0]}")
        raise StoppedWithin(results, error) if good_rows else error


@pytest.mark.parametrize(
    ("tunes", "make"),
    [(False, lambda rows: rows), (True, lambda rows: iter([rows]))],
)
@pytest.mark.parametrize("num_devices", [1, 3])
@pytest.mark.parametrize("row", [1, 4, 6, 301, 999])
def test_the_rows_before_it_are_delivered(make, row, num_devices, tunes):
    context = Context(
        devices=tuple("abc"[:num_devices]),
        specs=SpecMemory(),
        chunk_sizes=ChunkSizes(num_devices),
        clock=StageClock(num_devices),
        tunes=tunes,
        spec=tf.TensorSpec([None, 2], tf.float32),
    )
    engine = ThreadsEngine(context, Doubles(row, 999))
    rows = helpers.numbered_rows(1000)
    delivered = []
    with helpers.no_thread_left(), pytest.raises(LookupError) as caught:
        for batch in engine.run(as_source(make(rows)), BATCH):
            delivered.append(batch)
    assert str(caught.value) == f"row {row}"
    assert caught.value.__context__ is None
    np.testing.assert_array_equal(helpers.joined(delivered), 2 * rows[:row])
