"""What a run did and where its time went, as measured; shares add up to one."""

import dataclasses
import json
from typing import Any

from keras_mgpu_strategy.report.showing import as_html, plotted
from keras_mgpu_strategy.system.tracebacks import short_traceback

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
        "a larger batch_size, another compile= or a lower precision may help."
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
_NO_ROWS = "No row was run: there was none, or all were done before."


def rate_text(rows_per_second: float) -> str:
    """Such as "45,600", "1.5" or "0.033": two digits below ten."""
    if rows_per_second >= 9.95 or not rows_per_second:
        return f"{rows_per_second:,.0f}"
    return f"{rows_per_second:#.2g}"


def metric_lines(metrics: dict[str, Any] | None) -> list[str]:
    """A line for each metric; numbers have four digits."""
    return [f"{name:<9} {text}" for name, text in _metric_texts(metrics)]


def _metric_texts(metrics: dict[str, Any] | None) -> list[tuple[str, str]]:
    return [
        (name, format(x, "#.4g") if isinstance(x, float) else str(x))
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
    """A run in figures; a notebook shows the last line of a cell as a table.

    Args:
        rows: Rows delivered.
        seconds: From the first row asked for to the last delivered.
        bytes_in: Bytes of input given to the replicas, including padding.
        bytes_out: Bytes of results read from the replicas, excluding padding.
        replica_rows: Rows that each replica ran, some more than once to compare steps.
        batch_size: Per-replica batch at the end of the run.
        chunk_rows: Rows of the largest chunk.
        compile_seconds: Tracing and compiling; part of `seconds`.
        tried_batches: Per-replica batches that were compared on the first rows.
        back_offs: Batches that did not fit into memory.
        shares: For each of `STAGES`, the share of the replicas' time, excluding
            compiling. Time in which a replica did not compute is split by what went on.
        metrics: Of all rows of an output, by name: numbers, or lists; None without any.
        step: How the model was compiled at the end of the run: "plain", "frozen" or
            "xla"; None before the first row.
        tried_steps: What `compile="auto"` compared in this run, by name: rows a second
            of one replica, or why it was dropped.
        padding: With `pad`, the share of the tokens given to the model that are
            padding, including that of batches that rows do not fill; otherwise None.
        lengths: With `pad`, how many rows were padded to each length; otherwise None.
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
    step: str | None = None
    tried_steps: dict[str, float | str] = dataclasses.field(default_factory=dict)
    padding: float | None = None
    lengths: dict[int, int] | None = None

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
        if not self.rows:
            return _NO_ROWS
        copies = {name: self.shares[name] for name in ("copy_in", "copy_out")}
        return _ADVICE[self.bound].format(share=self._bounds()[self.bound], **copies)

    def to_dict(self) -> dict[str, Any]:
        """All figures and what follows from them, as JSON can hold them.

        Metrics that are NaN or infinite are None.
        """
        properties = ("rows_per_second", "num_replicas", "bound", "bottleneck")
        derived = {name: getattr(self, name) for name in properties}
        text = json.dumps(dataclasses.asdict(self) | derived)
        return json.loads(text, parse_constant=lambda name: None)

    @short_traceback
    def plot(self, ax: Any = None) -> Any:
        """Draws where the time went, with matplotlib (the extra `plot`).

        Args:
            ax: Axes of matplotlib to draw on; None makes a figure.

        Returns:
            The axes.

        Raises:
            ImportError: There is no matplotlib.
        """
        return plotted(self._seconds(), self._summary(), ax)

    def __str__(self) -> str:
        """Several lines for a person to read."""
        metrics = "".join(f"\n{line}" for line in metric_lines(self.metrics))
        if not self.rows:
            return f"{_NO_ROWS}{metrics}"
        back_offs = [f"out of memory at {text}\n" for text in self._back_off_texts()]
        step = [f"step: {text}\n" for text in self._step_texts()]
        padding = [f"padding: {text}\n" for text in self._padding_texts()]
        shares = ", ".join(
            f"{name.replace('_', ' ')} {self.shares[name]:.0%}" for name in STAGES
        )
        return (
            f"{self._summary()}\n"
            f"{self.num_replicas} replica{'s' * (self.num_replicas != 1)} ran "
            f"{self._rows_text()}, {self.batch_size} a batch, "
            f"up to {self.chunk_rows:,} a chunk\n"
            f"{self._bytes_text()}; {self.compile_seconds:.2f} s compiling\n"
            f"{''.join([*step, *padding, *back_offs])}time: {shares}\n"
            f"{self.bottleneck}{metrics}"
        )

    def _repr_pretty_(self, printer: Any, _cycle: bool) -> None:
        """What IPython shows on a terminal."""
        printer.text(str(self))

    def _repr_html_(self) -> str:
        """What a notebook shows."""
        facts = [
            ("run", self._summary()),
            ("replicas", f"{self.num_replicas}: {self._rows_text()}"),
            ("batches", f"{self.batch_size} rows, up to {self.chunk_rows:,} a chunk"),
            *(("step", text) for text in self._step_texts()),
            *(("padding", text) for text in self._padding_texts()),
            ("copied", self._bytes_text()),
            *(("out of memory", text) for text in self._back_off_texts()),
            *_metric_texts(self.metrics),
        ]
        return as_html(facts, self._seconds(), self.bottleneck)

    def _summary(self) -> str:
        rate = rate_text(self.rows_per_second)
        return f"{self.rows:,} rows in {self.seconds:.2f} s: {rate} rows/s"

    def _rows_text(self) -> str:
        return ", ".join(f"{rows:,}" for rows in self.replica_rows) + " rows"

    def _bytes_text(self) -> str:
        mebibytes = self.bytes_in / 2**20, self.bytes_out / 2**20
        return "{:,.1f} MiB in, {:,.1f} MiB out".format(*mebibytes)

    def _step_texts(self) -> list[str]:
        """Nothing before the first row."""
        tried = [
            f"{name} {x if isinstance(x, str) else f'{rate_text(x)} rows/s'}"
            for name, x in self.tried_steps.items()
        ]
        listed = f" (tried: {'; '.join(tried)})" if tried else ""
        return [] if self.step is None else [f"{self.step}{listed}"]

    def _padding_texts(self) -> list[str]:
        """Nothing if no row was padded."""
        rows = [f"{rows:,} of {n}" for n, rows in sorted((self.lengths or {}).items())]
        listed = f"{self.padding or 0:.0%} of the tokens; rows by length: "
        return [listed + ", ".join(rows)] if rows else []

    def _back_off_texts(self) -> list[str]:
        return [
            f"row {b.row}: batch {b.failed} -> {b.batch_size}" for b in self.back_offs
        ]

    def _seconds(self) -> dict[str, float]:
        """The time of the run by stage, compiling among them."""
        running = self.seconds - self.compile_seconds
        stages = {name: running * self.shares[name] for name in STAGES}
        return {"compile": self.compile_seconds} | stages
