"""One pipeline per replica: which replica gets which chunk."""

import threading

import numpy as np

from keras_mgpu_strategy.compute.signatures import SpecMemory
from keras_mgpu_strategy.engines.context import ChunkSizes, Context
from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.engines.pipelines import Rounds
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.report import StageClock


def rounds_of(source, strategy):
    devices = strategy.extended.worker_devices
    context = Context(
        devices=devices,
        specs=SpecMemory(),
        chunk_sizes=ChunkSizes(len(devices)),
        clock=StageClock(len(devices)),
        spec=source.spec,
    )
    return Rounds(Feed(source, 4), context, 2, lambda: 4, strategy)


def test_a_slow_source_does_not_hold_back_dealt_chunks(strategies):
    is_waiting, go_on = threading.Event(), threading.Event()

    def batches():
        yield np.zeros((4, 2), np.float32)
        yield np.ones((4, 2), np.float32)
        is_waiting.set()
        go_on.wait()

    source = as_source(batches())
    rounds = rounds_of(source, strategies[2])
    starts = []
    ahead = threading.Thread(
        target=lambda: starts.extend(rounds.take(0)[0] for _ in range(2))
    )
    ahead.start()
    is_waiting.wait()
    behind = threading.Thread(target=lambda: starts.append(rounds.take(1)[0]))
    behind.start()
    behind.join(30)
    assert starts == [0, 4]
    go_on.set()
    ahead.join()
    assert starts == [0, 4, -1]
