"""Finds results that are NaN or infinite, and says in which rows they are."""

from collections.abc import Iterable, Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.marks import is_float
from keras_mgpu_strategy.system.messages import warn
from keras_mgpu_strategy.types import HostBatch

POLICIES = ("raise", "warn", "ignore")
_MOST_RANGES = 10


class NonFiniteRows:
    """Looks at the batches of one run as they pass.

    Args:
        policy: `"raise"` at the first such batch, `"warn"` once at the end, or
            `"ignore"`.

    Raises:
        ValueError: The policy is none of these.
    """

    def __init__(self, policy: str):
        if policy not in POLICIES:
            raise ValueError(
                f"on_nonfinite={policy!r}. Expected one of {list(POLICIES)}."
            )
        self._policy = policy
        self._ranges: list[tuple[int, int]] = []
        self._count = 0

    def watching(self, batches: Iterable[HostBatch]) -> Iterator[HostBatch]:
        """Passes batches on and checks all rows that could be read.

        Raises:
            ValueError: A value is NaN or infinite, and the policy is to raise.
        """
        if self._policy == "ignore":
            yield from batches
            return
        try:
            for batch in batches:
                self._look(batch, batch.marks.missing)
                yield batch
        finally:
            if self._count and self._policy == "warn":
                warn(self._complaint())

    def _look(self, batch: HostBatch, missing: np.ndarray | None) -> None:
        rows = _bad_rows(batch)
        if missing is not None:
            rows = rows[~missing[rows]]
        if not len(rows):
            return
        self._note(batch.start + rows)
        if self._policy == "raise":
            raise ValueError(self._complaint())

    def _note(self, rows: np.ndarray) -> None:
        self._count += len(rows)
        for run in np.split(rows, np.flatnonzero(np.diff(rows) > 1) + 1):
            first, last = int(run[0]), int(run[-1])
            if self._ranges and self._ranges[-1][1] + 1 == first:
                self._ranges[-1] = (self._ranges[-1][0], last)
            elif len(self._ranges) <= _MOST_RANGES:
                self._ranges.append((first, last))

    def _complaint(self) -> str:
        named = [
            f"{first}" if first == last else f"{first} to {last}"
            for first, last in self._ranges[:_MOST_RANGES]
        ]
        more = " and more" if len(self._ranges) > _MOST_RANGES else ""
        return (
            f"Results are NaN or infinite in {self._count} rows: {', '.join(named)}"
            f'{more}. Look at these rows of the input, or pass on_nonfinite="ignore".'
        )


def _bad_rows(batch: HostBatch) -> np.ndarray:
    """Indices within the batch, in ascending order."""
    bad = np.zeros(batch.num_rows, bool)
    for array in tf.nest.flatten(batch.outputs):
        if not is_float(array) or array.size == 0:
            continue
        values = array.astype(np.float32) if array.dtype.kind == "V" else array
        finite = np.isfinite(values)
        if not finite.all():
            bad |= ~finite.reshape(len(array), -1).all(axis=1)
    return np.flatnonzero(bad)
