"""Runs chunks in pieces that fit into the memory of the devices.

Guarantee: a piece that does not fit is run again, smaller, by the thread that holds the
chunk; no row is read twice, and no row whose results were kept is run twice.
"""

from collections.abc import Callable, Sequence
from typing import Any, Protocol, TypeVar

from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.device_memory import Probe
from keras_mgpu_strategy.engines.memory_plans import Plan, is_out_of_memory
from keras_mgpu_strategy.engines.track import Track, Turn


class Piece(Protocol):
    """Rows that may be run in pieces: a chunk, or one for each replica."""

    @property
    def start(self) -> int:
        """Index of the first row."""
        ...

    @property
    def most_rows(self) -> int:
        """Rows that one device is given."""
        ...

    def split(self, num_rows: int | None) -> tuple[Any, Any]:
        """The first rows for each device, and the others; None if there are none."""
        ...


R = TypeVar("R")
Attempt = Callable[[Any, Plan, Turn], tuple[R, int]]
"""Runs a piece; returns its results and the bytes of its inputs and outputs."""


def run_fitting(
    chunk: Piece,
    attempt: Attempt[R],
    batch: BatchSize,
    track: Track,
    devices: Sequence[str],
) -> list[R]:
    """Returns the results of the pieces of a chunk, in order.

    Args:
        chunk: The rows.
        attempt: Runs a piece.
        batch: How much fits.
        track: What the devices do.
        devices: The devices that the chunk runs on.
    """
    results: list[R] = []
    rest: Any = chunk
    while rest is not None:
        with track.turn(lambda: batch.plan.held) as turn:
            plan = batch.plan
            piece, others = rest.split(plan.chunk_rows)
            probe = Probe(devices) if plan.is_measured else None
            try:
                result, moved = attempt(piece, plan, turn)
            except Exception as error:
                if not is_out_of_memory(error):
                    raise
                batch.shrink(plan, piece.most_rows, piece.start, error)
                continue
            results.append(result)
            rest = others
            if probe is not None:
                batch.learn(plan, probe.reading(moved))
    return results
