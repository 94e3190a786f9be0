"""Peak anonymous memory of a run from a file into a file, above the loaded model.

Anonymous memory is what a process holds besides its files: the system can reclaim pages
of the two memory maps at any time, so they do not count.
"""

import pathlib
import tempfile
import threading
import time
from collections.abc import Iterator
from typing import Any

import numpy as np

import keras_mgpu_strategy as mgpu
from keras_mgpu_strategy.benchmark import machine
from keras_mgpu_strategy.benchmark.rows import make_rows
from suite import models
from suite.jobs import Job
from suite.records import record_of

_STATUS = pathlib.Path("/proc/self/status")
_BLOCK_ROWS = 1 << 16
_DEFAULT_ROWS = 1_000_000
_INTERVAL_SECONDS = 0.01


def anonymous_bytes() -> int:
    """The anonymous memory of this process that is now in use."""
    for line in _STATUS.read_text("utf-8", "replace").splitlines():
        if line.startswith("RssAnon:"):
            return int(line.split()[1]) * 1024
    raise OSError(f"{_STATUS} has no line RssAnon. Expected Linux 4.5 or later.")


class PeakMemory:
    """Samples the anonymous memory from a thread, from `start` to `stop`."""

    def __init__(self) -> None:
        self.before = anonymous_bytes()
        self.peak = self.before
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._sample, daemon=True)

    def start(self) -> None:
        """Starts sampling."""
        self._thread.start()

    def stop(self) -> None:
        """Ends sampling; `peak` is final."""
        self._done.set()
        self._thread.join()

    def _sample(self) -> None:
        while not self._done.wait(_INTERVAL_SECONDS):
            self.peak = max(self.peak, anonymous_bytes())


def run(job: Job) -> dict[str, Any]:
    """Measures one contender of a job of the case `memory`."""
    (name,) = job.contenders
    strategy = machine.make_strategy(machine.configure(job.devices), job.replicas)
    with strategy.scope():
        model = models.build(job.model, job.seed)
    block = make_rows(model, job.model, _BLOCK_ROWS, job.seed)
    if not isinstance(block, np.ndarray) or not isinstance(model.output_shape, tuple):
        raise ValueError(f"{job.model} has several inputs or outputs. Expected one.")
    total = job.rows or _DEFAULT_ROWS
    with tempfile.TemporaryDirectory(prefix="mgpu-") as folder:
        x, results = _open_files(pathlib.Path(folder), block, total, model)
        is_mirrored = name == "mgpu_mirrored"
        engine = "mirrored" if is_mirrored else "threads"
        predictor = mgpu.Predictor(model, engine=engine)
        memory = PeakMemory()
        memory.start()
        started = time.perf_counter()
        for batch in predictor.predict_iter(x, _global_batch(job)):
            results[batch.start : batch.stop] = batch.outputs
        seconds = time.perf_counter() - started
        memory.stop()
        _check(model, block, results)
    contender = {
        "rows_run": total,
        "seconds": [seconds],
        "rows_per_second": [total / seconds],
        "anonymous_bytes_before": memory.before,
        "anonymous_bytes_above": memory.peak - memory.before,
    }
    return record_of(job, total, predictor.devices, {name: contender})


def _global_batch(job: Job) -> int | None:
    return None if job.batch is None else job.batch * job.replicas


def _open_files(
    folder: pathlib.Path, block: np.ndarray, total: int, model: Any
) -> tuple[np.ndarray, np.ndarray]:
    """Memory maps of the input, filled with copies of a block, and of the results."""
    shape = (total, *block.shape[1:])
    path = folder / "rows.npy"
    rows = np.lib.format.open_memmap(path, "w+", block.dtype, shape)
    for start, stop in _blocks(total):
        rows[start:stop] = block[: stop - start]
    rows.flush()
    out_shape = (total, *model.output_shape[1:])
    results = np.lib.format.open_memmap(
        folder / "results.npy", "w+", np.float32, out_shape
    )
    return np.load(path, mmap_mode="r"), results


def _check(model: Any, block: np.ndarray, results: np.ndarray) -> None:
    expected = np.asarray(model(block, training=False))
    for start, stop in _blocks(len(results)):
        if not np.allclose(results[start:stop], expected[: stop - start], 1e-3, 1e-5):
            raise ValueError(f"wrong results between rows {start} and {stop}")


def _blocks(total: int) -> Iterator[tuple[int, int]]:
    for start in range(0, total, _BLOCK_ROWS):
        yield start, min(start + _BLOCK_ROWS, total)
