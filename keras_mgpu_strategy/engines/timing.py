"""Where the time of a chunk went on its device."""

import time

import tensorflow as tf

from keras_mgpu_strategy.compute.transfers import has_own_memory
from keras_mgpu_strategy.engines.context import Work
from keras_mgpu_strategy.engines.track import Turn

_TRIED_BYTES = 1 << 20


def note_stages(
    work: Work,
    replica: int,
    turn: Turn,
    num_rows: int,
    bytes_out: int,
    *,
    count: int = 1,
    least_seconds: float = 0.0,
) -> None:
    """Records the stages of a chunk whose results have arrived.

    Args:
        work: Per-run state.
        replica: Index of the replica.
        turn: When the chunk entered each stage.
        num_rows: Rows that the device was given.
        bytes_out: Bytes of its results.
        count: Replicas that each ran a chunk at the same time.
        least_seconds: How long its rows took before, which also counts for how many
            are taken at a time.
    """
    ended, clock, stages = time.perf_counter(), work.clock, work.pace.stages
    seconds = work.pace.busy(replica, turn.began, ended)
    work.pace.record(num_rows, max(seconds, least_seconds))
    if not has_own_memory(work.devices[replica]):
        clock.add("compute", count * seconds)
        return
    out = stages.seconds("copy_out", bytes_out)
    if turn.copies_alone:
        stages.learn("copy_in", num_rows, turn.copied - turn.began)
    if turn.computes_alone:
        stages.learn("compute", num_rows, max(ended - turn.launched - out, 0.0))
    clock.add("copy_out", count * out)
    for stage in ("copy_in", "compute"):
        clock.add(stage, count * stages.seconds(stage, num_rows))


def try_copies_out(work: Work, replica: int) -> None:
    """Learns how fast results come from a device that is otherwise idle."""
    device = work.devices[replica]
    if not has_own_memory(device):
        return
    with tf.device(device):
        block = tf.zeros([_TRIED_BYTES], tf.uint8)
        block[:1].numpy()  # which waits for it
        began = time.perf_counter()
        block.numpy()
    work.pace.stages.learn("copy_out", _TRIED_BYTES, time.perf_counter() - began)
