"""The clock of a run: counts and times from several threads -> `Report`."""

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager

from keras_mgpu_strategy.report.figures import STAGES, BackOff, Report


class StageClock:
    """Collects the figures of one run from several threads."""

    def __init__(self, num_replicas: int):
        # The garbage collector may end a run in one of its threads that has the lock.
        self._lock = threading.RLock()
        self._began: float | None = None
        self._ended = 0.0
        self._seconds: dict[str, float] = dict.fromkeys((*STAGES, "compile"), 0.0)
        self._rows = self._bytes_in = self._bytes_out = 0
        self._chunk_rows = self._batch_size = 0
        self._replica_rows = [0] * num_replicas
        self._tried_batches: list[int] = []
        self._back_offs: list[BackOff] = []
        self._step: str | None = None
        self._tried_steps: dict[str, float | str] = {}
        self._settled_from: int | None = None  # a row; None until a step is settled
        self.best_step: str | None = None  # for later runs, too
        self._lengths: dict[int, int] | None = None  # unless rows are padded
        self._tokens = self._given_tokens = 0

    def start(self) -> None:
        """Marks the beginning of the run."""
        self._began = self._ended = time.perf_counter()

    @contextmanager
    def stage(self, name: str) -> Iterator[None]:
        """Adds the time spent inside to a stage, or to "compile"."""
        began = time.perf_counter()
        try:
            yield
        finally:
            self.add(name, time.perf_counter() - began)

    def add(self, name: str, seconds: float) -> None:
        """Adds time to a stage."""
        with self._lock:
            self._seconds[name] += seconds

    def add_chunk(
        self, replica: int, num_rows: int, batch_size: int, bytes_in: int
    ) -> None:
        """Counts a chunk that a replica ran."""
        with self._lock:
            self._replica_rows[replica] += num_rows
            self._bytes_in += bytes_in
            self._chunk_rows = max(self._chunk_rows, num_rows)
            self._batch_size = batch_size

    def add_delivered(self, num_rows: int, num_bytes: int) -> None:
        """Counts rows that reached the user."""
        with self._lock:
            self._rows += num_rows
            self._bytes_out += num_bytes
            self._ended = time.perf_counter()

    def add_trial(self, batch_size: int) -> None:
        """Records a per-replica batch that is tried out."""
        with self._lock:
            self._tried_batches.append(batch_size)

    def add_back_off(self, back_off: BackOff) -> None:
        """Records a batch that did not fit into memory."""
        with self._lock:
            self._back_offs.append(back_off)

    def begin_step(self, step: str, *, is_settled: bool) -> None:
        """Records the step that a run begins with."""
        self._step, self._settled_from = step, 0 if is_settled else None

    def choose_step(
        self, step: str, row: int, tried: dict[str, float | str], *, for_later: bool
    ) -> None:
        """Records the step of all rows from some row onwards, and what was compared."""
        with self._lock:
            self._step, self._settled_from = step, row
            self._tried_steps = tried
            self.best_step = step if tried and for_later else None

    def add_tokens(self, rows: dict[int, int], tokens: int, given: int) -> None:
        """Counts rows by the length that they were padded to, and their tokens.

        `given` are those of the model, with all padding.
        """
        with self._lock:
            self._lengths = known = self._lengths or {}
            for length, count in rows.items():
                known[length] = known.get(length, 0) + count
            self._tokens += tokens
            self._given_tokens += given

    def settled_step(self, row: int) -> str | None:
        """The step of all rows from `row` onwards; None if it is not known yet."""
        with self._lock:
            is_settled = self._settled_from is not None and row >= self._settled_from
            return self._step if is_settled else None

    def seconds(self) -> dict[str, float]:
        """Time spent in each stage and in "compile"."""
        with self._lock:
            return dict(self._seconds)

    def report(self) -> Report:
        """The figures so far."""
        with self._lock:
            seconds = self._ended - (self._began or self._ended)
            return Report(
                rows=self._rows,
                seconds=seconds,
                bytes_in=self._bytes_in,
                bytes_out=self._bytes_out,
                replica_rows=tuple(self._replica_rows),
                batch_size=self._batch_size,
                chunk_rows=self._chunk_rows,
                compile_seconds=min(self._seconds["compile"], seconds),
                tried_batches=tuple(self._tried_batches),
                back_offs=tuple(self._back_offs),
                shares=_shares(self._seconds, seconds, len(self._replica_rows)),
                step=self._step,
                tried_steps=dict(self._tried_steps),
                padding=self._padding(),
                lengths=self._lengths and dict(sorted(self._lengths.items())),
            )

    def _padding(self) -> float | None:
        if self._lengths is None:
            return None
        return 1 - self._tokens / self._given_tokens if self._given_tokens else 0.0


def _shares(
    spent: dict[str, float], seconds: float, num_replicas: int
) -> dict[str, float]:
    """Splits the replicas' time, excluding compiling, among the stages."""
    running = max(seconds - spent["compile"], 1e-9) * num_replicas
    compute = min(spent["compute"] / running, 1.0)
    waits = {name: spent[name] for name in STAGES if name != "compute"}
    total = sum(waits.values())
    if total == 0:
        return {name: float(name == "compute") for name in STAGES}
    idle = (1.0 - compute) / total
    return {"compute": compute} | {name: idle * wait for name, wait in waits.items()}
