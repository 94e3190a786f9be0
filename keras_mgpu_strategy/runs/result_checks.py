"""Checks of results as they pass: NaN and infinities, and values of probabilities."""

from collections.abc import Callable, Iterable, Iterator

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.sources.marks import is_float, masked
from keras_mgpu_strategy.system.messages import warn
from keras_mgpu_strategy.types import HostBatch, Ragged, rows_of, values_of

POLICIES = ("raise", "warn", "ignore")
_MOST_RANGES = 10

Check = Callable[[Iterable[HostBatch]], Iterable[HostBatch]]


def result_checks(method: str, on_nonfinite: str, *, strict: bool) -> Check:
    """Returns what passes results on and checks them."""
    if strict and method != "predict_proba":
        raise ValueError(
            f"Received strict=True with method={method!r}, whose results need not be "
            "probabilities. Use predict_proba."
        )
    nonfinite = NonFiniteRows(on_nonfinite)

    def checked(results: Iterable[HostBatch]) -> Iterable[HostBatch]:
        results = nonfinite.watching(results)
        if method == "predict_proba":
            results = probabilities(results, strict=strict)
        return masked(results, floats_only=True)

    return checked


class NonFiniteRows:
    """Finds NaN or infinite rows; raises at the first batch, or warns at the end."""

    def __init__(self, policy: str):
        if policy not in POLICIES:
            raise ValueError(
                f"on_nonfinite={policy!r}. Expected one of {list(POLICIES)}."
            )
        self._policy = policy
        self._ranges: list[tuple[int, int]] = []
        self._count = 0
        self._is_half = False

    def watching(self, batches: Iterable[HostBatch]) -> Iterator[HostBatch]:
        """Passes batches on and checks all rows that could be read."""
        if self._policy == "ignore":
            yield from batches
            return
        try:
            for batch in batches:
                self._note(_nonfinite_rows(batch))
                self._is_half |= _is_half(batch)
                if self._count and self._policy == "raise":
                    raise ValueError(self._complaint())
                yield batch
        finally:
            if self._count and self._policy == "warn":
                warn(self._complaint())

    def _note(self, rows: np.ndarray) -> None:
        if not len(rows):
            return
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
        limit = " float16 ends at 65504." if self._is_half else ""
        return (
            f"Results are NaN or infinite in {self._count} rows: {', '.join(named)}"
            f"{more}.{limit} Look at these rows of the input, or pass "
            'on_nonfinite="ignore".'
        )


def _is_half(batch: HostBatch) -> bool:
    return any(array.dtype == np.float16 for array in tf.nest.flatten(batch.outputs))


def _nonfinite_rows(batch: HostBatch) -> np.ndarray:
    """Indices of rows in ascending order, except those that could not be read."""
    bad = np.zeros(batch.num_rows, bool)
    for leaf in tf.nest.flatten(batch.outputs):
        array = values_of(leaf)
        if is_float(array) and array.size:
            finite = np.isfinite(_comparable(array))
            if not finite.all():
                found = np.flatnonzero(~finite.reshape(len(array), -1).all(axis=1))
                bad[rows_of(leaf, found)] = True
    if batch.marks.missing is not None:
        bad &= ~batch.marks.missing
    return batch.start + np.flatnonzero(bad)


def probabilities(batches: Iterable[HostBatch], *, strict: bool) -> Iterator[HostBatch]:
    """Warns at the end of values outside [0, 1] or NaN; if `strict`, raises at once."""
    worst: tuple[float, float, int] | None = None
    for batch in batches:
        found = _worst(batch)
        if found is not None and strict:
            raise ValueError(_not_probabilities(*found[1:]))
        if found is not None and (worst is None or found[0] > worst[0]):
            worst = found
        yield batch
    if worst is not None:
        warn(_not_probabilities(*worst[1:]))


def _not_probabilities(value: float, row: int) -> str:
    return (
        f"Invalid probability values: {value:g} in row {row} is the worst value "
        "outside [0, 1]. The model seems to return logits: pass from_logits=True for a "
        "softmax (a sigmoid for one column), or call predict() for values of any range."
    )


def _worst(batch: HostBatch) -> tuple[float, float, int] | None:
    """Distance from [0, 1], value and row of the worst value; None if all are in."""
    leaves = [leaf for leaf in tf.nest.flatten(batch.outputs) if values_of(leaf).size]
    found = map(_worst_of, leaves)
    outside = [(far, value, batch.start + row) for far, value, row in found if far > 0]
    return max(outside, default=None)


def _worst_of(leaf: np.ndarray | Ragged) -> tuple[float, float, int]:
    array = values_of(leaf)
    if array.dtype.kind in "SUO":
        raise TypeError(
            f"predict_proba got outputs of dtype {array.dtype}, expected numbers. "
            "Call predict() for a model that does not return probabilities."
        )
    array = _comparable(array)
    if array.min() >= 0 and array.max() <= 1:
        return 0.0, 0.0, 0
    distance = np.nan_to_num(np.maximum(-array, array - 1), nan=np.inf, posinf=np.inf)
    index = np.unravel_index(int(np.argmax(distance)), array.shape)
    row = int(rows_of(leaf, index[0]))
    return float(distance[index]), float(array[index]), row


def _comparable(array: np.ndarray) -> np.ndarray:
    """Floats for integers and bfloat16: NumPy cannot replace or compare its NaN."""
    if array.dtype.kind in "biu":
        return array.astype(np.float64)
    return array.astype(np.float32) if array.dtype.kind == "V" else array
