"""How many rows a replica should take at a time, from how long rows took so far.

A chunk takes about 30 ms of a replica's time: long enough that the host's work per
chunk does not matter, short enough for results to flow and replicas to end together.
With many replicas it takes longer, since one host serves them all in turn. Towards the
end of the input chunks get smaller, down to one micro-batch.
"""

import threading

from keras_mgpu_strategy.system.integers import ceil_div

_LEAST_SECONDS = 0.03
_SECONDS_PER_REPLICA = 0.005
_NEWEST = 0.3


class StageTimes:
    """How long a device takes for each stage of a chunk on its own.

    Only calls that had the device to themselves are used, such as the first of a run,
    and the fastest of those counts.
    """

    def __init__(self) -> None:
        self._rates: dict[str, float] = {}

    def learn(self, stage: str, amount: int, seconds: float) -> None:
        """Learns from a call that ran alone on an amount of rows or bytes."""
        rate = seconds / max(amount, 1)
        self._rates[stage] = min(rate, self._rates.get(stage, rate))

    def seconds(self, stage: str, amount: int) -> float:
        """How long a stage takes for that many rows or bytes; 0 if unknown."""
        return self._rates.get(stage, 0.0) * amount


class ChunkSizes:
    """The time that a row takes, learned from chunk to chunk.

    Time that calls overlap on one device counts once: a device that holds two chunks is
    not mistaken for one of half the speed. `stages` are timed on devices with memory of
    their own.
    """

    def __init__(self, num_replicas: int):
        self._num_replicas = num_replicas
        self._target = max(_LEAST_SECONDS, _SECONDS_PER_REPLICA * num_replicas)
        self.stages = StageTimes()
        self._seconds_per_row: float | None = None
        self._free_since = [0.0] * num_replicas
        self._lock = threading.Lock()

    def busy(self, replica: int, began: float, ended: float) -> float:
        """Seconds of a call in which its device was not busy with an earlier one."""
        with self._lock:
            free_since = self._free_since[replica]
            self._free_since[replica] = max(ended, free_since)
        return max(ended - max(began, free_since), 0.0)

    def record(self, num_rows: int, seconds: float) -> None:
        """Learns that a replica computed some rows, padding included."""
        newest = seconds / num_rows
        with self._lock:
            known = self._seconds_per_row or newest
            self._seconds_per_row = known + _NEWEST * (newest - known)

    def seconds(self, num_rows: int) -> float:
        """How long one replica takes for some rows; infinite if not known yet."""
        known = self._seconds_per_row
        return float("inf") if known is None else known * num_rows

    def chunk_rows(self, batch_size: int, most_rows: int, rows_left: int | None) -> int:
        """Rows to take now: whole micro-batches, one if nothing is known yet."""
        if self._seconds_per_row is None:
            return batch_size
        wanted = self._target / max(self._seconds_per_row * batch_size, 1e-9)
        most = max(most_rows // batch_size, 1)
        if rows_left is not None:
            most = min(most, ceil_div(rows_left, 2 * self._num_replicas * batch_size))
        return batch_size * max(min(int(wanted), most), 1)
