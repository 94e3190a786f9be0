"""What a run did and where its time went, as measured; shares add up to one."""

import dataclasses
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

STAGES = ("input", "copy_in", "compute", "copy_out", "write")
BOUNDS = ("input", "transfer", "compute", "write", "compile")

_COMPUTE_BOUND = 0.75
_ADVICE = {
    "input": (
        "input-bound: {share:.0%} of the time replicas waited for rows. Read ahead "
        "(`Dataset.prefetch`), decode in parallel, or store rows as a `.npy` memmap."
    ),
    "compute": (
        "compute-bound: {share:.0%} of the time replicas were computing. More devices, "
        "a larger batch_size, jit_compile=True or a lower precision may help."
    ),
    "transfer": (
        "transfer-bound: {share:.0%} of the time replicas waited for copies, "
        "{copy_in:.0%} to them and {copy_out:.0%} from them. Send smaller rows, to be "
        "converted in the model; return less: predict_top_k, outputs, output_dtype."
    ),
    "write": (
        "write-bound: {share:.0%} of the time replicas waited for results to be taken. "
        "Take them faster, or write to a faster disk."
    ),
    "compile": (
        "compile-bound: {share:.0%} of the time went into tracing and compiling the "
        "model; later calls of this Predictor skip that."
    ),
}


def rate_text(rows_per_second: float) -> str:
    """Such as "45,600", "1.5" or "0.033": two digits below ten."""
    if rows_per_second >= 9.95 or not rows_per_second:
        return f"{rows_per_second:,.0f}"
    return f"{rows_per_second:#.2g}"


def metric_lines(metrics: dict[str, Any] | None) -> list[str]:
    """A line for each metric; numbers have four digits."""
    return [
        f"{name:<9} {format(x, '#.4g') if isinstance(x, float) else x}"
        for name, x in (metrics or {}).items()
    ]


@dataclasses.dataclass(frozen=True)
class BackOff:
    """The per-replica batch that failed on a row's chunk, and the next size."""

    row: int
    failed: int
    batch_size: int


@dataclasses.dataclass(frozen=True)
class Report:
    """A run in figures.

    Args:
        rows: Rows delivered.
        seconds: From the first row asked for to the last delivered.
        bytes_in: Bytes of input given to the replicas, including padding.
        bytes_out: Bytes of results read from the replicas, excluding padding.
        replica_rows: Rows that each replica ran.
        batch_size: Per-replica batch at the end of the run.
        chunk_rows: Rows of the largest chunk.
        compile_seconds: Tracing and compiling; part of `seconds`.
        tried_batches: Per-replica batches that were compared on the first rows.
        back_offs: Batches that did not fit into memory.
        shares: For each of `STAGES`, the share of the replicas' time, excluding
            compiling. Time in which a replica did not compute is split by what went on.
        metrics: Of all rows of an output, by name: numbers, or lists; None without any.
    """

    rows: int
    seconds: float
    bytes_in: int
    bytes_out: int
    replica_rows: tuple[int, ...]
    batch_size: int
    chunk_rows: int
    compile_seconds: float
    tried_batches: tuple[int, ...]
    back_offs: tuple[BackOff, ...]
    shares: dict[str, float]
    metrics: dict[str, Any] | None = None

    @property
    def rows_per_second(self) -> float:
        """Rows a second, including compiling."""
        return self.rows / self.seconds if self.seconds else 0.0

    @property
    def num_replicas(self) -> int:
        """Number of replicas, including those that ran no row."""
        return len(self.replica_rows)

    @property
    def bound(self) -> str:
        """What to fix first: "input", "transfer", "compute", "write" or "compile".

        The largest share, except that a large wait counts more than computing, which
        is the work itself. Copies in both directions count together.
        """
        shares = self._bounds()
        if shares.pop("compile") > 0.5:
            return "compile"
        *_, wait, largest = sorted(shares, key=lambda name: shares[name])
        can_improve = shares["compute"] < _COMPUTE_BOUND and shares[wait] > 0.25
        return wait if largest == "compute" and can_improve else largest

    def _bounds(self) -> dict[str, float]:
        shares = {name: self.shares.get(name, 0.0) for name in BOUNDS}
        shares["transfer"] = self.shares["copy_in"] + self.shares["copy_out"]
        if self.seconds:
            shares["compile"] = self.compile_seconds / self.seconds
        return shares

    @property
    def bottleneck(self) -> str:
        """One sentence: what the run waited for most, and what to try."""
        copies = {name: self.shares[name] for name in ("copy_in", "copy_out")}
        return _ADVICE[self.bound].format(share=self._bounds()[self.bound], **copies)

    def __str__(self) -> str:
        """Several lines for a person to read."""
        rows = ", ".join(f"{rows:,}" for rows in self.replica_rows)
        back_offs = [
            f"out of memory at row {b.row}: batch {b.failed} -> {b.batch_size}\n"
            for b in self.back_offs
        ]
        shares = ", ".join(
            f"{name.replace('_', ' ')} {self.shares[name]:.0%}" for name in STAGES
        )
        return (
            f"{self.rows:,} rows in {self.seconds:.2f} s: "
            f"{rate_text(self.rows_per_second)} rows/s\n"
            f"{self.num_replicas} replica{'s' * (self.num_replicas != 1)} ran {rows} "
            f"rows, {self.batch_size} a batch, up to {self.chunk_rows:,} a chunk\n"
            f"{self.bytes_in / 2**20:,.1f} MiB in, {self.bytes_out / 2**20:,.1f} MiB "
            f"out; {self.compile_seconds:.2f} s compiling\n"
            f"{''.join(back_offs)}time: {shares}\n{self.bottleneck}"
            + "".join(f"\n{line}" for line in metric_lines(self.metrics))
        )


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
            )


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
