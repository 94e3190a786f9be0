"""Turns results of replicas into ordered rows in host memory.

Nothing is joined on a device. Padding is trimmed, and a result with a different number
of rows than its input is an error, never a shift of the rows after it.
"""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.types import HostBatch, Nest, cut, joined


def to_host(outputs: Nest, start: int, num_rows: int, padded_rows: int) -> HostBatch:
    """Reads a chunk's results, on CPUs as read-only views, and trims the padding."""

    def read(leaf: tf.Tensor) -> np.ndarray:
        array = np.asarray(leaf)
        if array.shape[:1] != (padded_rows,):
            raise ValueError(
                f"The model gave an output of shape {array.shape} for {padded_rows} "
                f"rows, expected ({padded_rows}, ...). Each output needs one row per "
                "input row; leave outputs without a batch axis out of the model."
            )
        return array[:num_rows]

    return HostBatch(start, tf.nest.map_structure(read, outputs))


def in_order(batches: Iterable[HostBatch], start: int) -> Iterator[HostBatch]:
    """Yields batches in row order, holding back those that came too early."""
    early: dict[int, HostBatch] = {}
    for batch in batches:
        early[batch.start] = batch
        while start in early:
            ready = early.pop(start)
            start = ready.stop
            yield ready
    if early:
        raise RuntimeError(f"Rows from {start} on are missing before {min(early)}.")


def resplit(
    batches: Iterable[HostBatch], next_size: Callable[[], int | None]
) -> Iterator[HostBatch]:
    """Cuts a gapless stream of batches into batches of other sizes.

    `next_size` returns None if more rows must arrive first. A size of 0 gives an empty
    batch; shorter ones come where the rows end or their shape changes.
    """
    held: list[HostBatch] = []
    size: int | None = None
    for batch in batches:
        if held and _row_shapes(held[0]) != _row_shapes(batch):
            if any(part.num_rows for part in held):
                yield join(held)
                size = None
            held = []
        held.append(batch)
        while (size := next_size() if size is None else size) is not None:
            if size > sum(part.num_rows for part in held):
                break
            ready, rest = split(join(held), size)
            held, size = [rest], None
            yield ready
    while held and (size := next_size() if size is None else size) is not None:
        ready, rest = split(join(held), size)
        held, size = [rest] if rest.num_rows or size == 0 else [], None
        yield ready


def _row_shapes(batch: HostBatch) -> list[tuple[int, ...]]:
    return [array.shape[1:] for array in tf.nest.flatten(batch.outputs)]


def join(parts: list[HostBatch]) -> HostBatch:
    """Joins consecutive batches, whose rows must have one shape, without marks."""
    if len(parts) == 1:
        return parts[0]
    nests = [part.outputs for part in parts]
    outputs = tf.nest.map_structure(lambda *leaves: joined(leaves), *nests)
    return HostBatch(parts[0].start, outputs)


def split(batch: HostBatch, num_rows: int) -> tuple[HostBatch, HostBatch]:
    """The first rows of a batch, and the others, which may be no rows."""
    head, rest = cut(batch.outputs, 0, num_rows), cut(batch.outputs, num_rows)
    marks = batch.marks
    return (
        HostBatch(batch.start, head, marks.between(0, num_rows)),
        HostBatch(batch.start + num_rows, rest, marks.between(num_rows)),
    )


def rows_from(batch: HostBatch, start: int) -> HostBatch:
    """The rows of a batch from some index onwards; none if it ends before."""
    return batch if start <= batch.start else split(batch, start - batch.start)[1]
