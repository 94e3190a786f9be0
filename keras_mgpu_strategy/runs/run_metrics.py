"""Metrics of a run, computed on the host as its results are written.

Rows are counted in blocks that begin at multiples of 256, whatever the chunks, so that
a run that was stopped ends with the same bits: it is resumed at a row from which blocks
can be formed again. Rows that could not be read are left out.
"""

import itertools
import time
from collections.abc import Iterator
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.gather import join, rows_from, split
from keras_mgpu_strategy.metrics.state import BuiltMetric, OnHost, values_of
from keras_mgpu_strategy.outputs.metric_states import Record
from keras_mgpu_strategy.runs.asked_metrics import AskedMetrics
from keras_mgpu_strategy.runs.judging import BatchLoop
from keras_mgpu_strategy.runs.model_rows import ModelRows
from keras_mgpu_strategy.sources.in_step import check_label_end, label_settings
from keras_mgpu_strategy.types import HostBatch, Nest, cut

_BLOCK_ROWS = 256
# Of all lines of a journal that grows for days; longer pauses spread them.
_RECORDED_BYTES = 2**24


class RunMetrics:
    """The metrics of one run, of the rows in its range of the input."""

    def __init__(self, asked: AskedMetrics, rows: ModelRows):
        labels = label_settings(rows.whole)
        self.settings = {"metrics": asked.identity(), **labels}
        self._asked, self._rows = asked, rows
        self._built: list[BuiltMetric] = []
        self._before: Record | None = None
        self._held: list[HostBatch] = []
        self._host, self._has_failed = OnHost(), False
        self._loop = BatchLoop(self._step, autograph=False)
        self._next = self._counted = self.recorded = rows.first_row
        self._began = self._recorded_at = time.monotonic()

    def resume(self, record: Record | None, start: int) -> None:
        """Continues from what a journal has; the run begins at row `start`."""
        self._before = record
        if record is not None:
            self._next = self._counted = self.recorded = record["row"]
        if start > self._next:
            raise ValueError(
                f"The journal continues at row {start}, but its metrics count only "
                f"{self._next} rows. Pass overwrite=True to begin again."
            )

    def begin(self, batch: HostBatch, *, in_shards: bool) -> None:
        """Makes the metrics for results and labels as they are in the first batch."""
        if not batch.num_rows:  # the rows of a run that is resumed are counted already
            return
        labels = _labels_of(batch)
        self._pick, self._built = self._asked.built(batch.outputs, labels)
        for built in self._built if in_shards else ():
            built.check_additive()
        if self._before is not None:
            self._restore(self._before["states"])
        picked = self._pick(labels, batch.outputs)
        self._host.call(self._loop.trace, tf.nest.map_structure(_spec, picked))

    def add(self, batch: HostBatch) -> None:
        """Takes rows that were written; those that were counted before are dropped."""
        batch = rows_from(batch, self._next)
        if not batch.num_rows:
            return
        missing = batch.marks.missing
        is_read = np.ones(batch.num_rows, bool) if missing is None else ~missing
        data = self._pick(_labels_of(batch), batch.outputs)
        self._held.append(HostBatch(batch.start, (data, is_read)))
        self._next = batch.stop
        self._count(self._next - self._next % _BLOCK_ROWS)

    def end(self) -> None:
        """Counts the rows that do not fill a block, after the last row of the run."""
        check_label_end(self._rows.whole, self._next)
        self._count(self._next)
        self._wait()

    def close(self) -> None:
        """Ends the thread that counts."""
        self._host.close()

    def record(self, *, always: bool) -> Record | None:
        """The states for the journal; None if it is too soon for states of that size.

        Unless `always`, all records together have few times `_RECORDED_BYTES`.
        """
        now = time.monotonic()
        variables = [v for built in self._built for v in built.metric.variables]
        num_bytes = sum(np.asarray(variable).nbytes for variable in variables)
        pause = (now - self._began) * num_bytes / _RECORDED_BYTES
        if self._has_failed or (not always and now - self._recorded_at < pause):
            return None
        self._wait()
        self._recorded_at, self.recorded = now, self._counted
        return {"row": self._counted, "states": self._states()}

    def values(self) -> dict[str, Any]:
        """The results by name, numbers or lists of them; none if there are no rows."""
        found: dict[str, Any] = {}
        for built in self._built:
            found |= built.values()
        return found or values_of({"states": self._states()}, self._asked.own)

    def _states(self) -> list[dict[str, Any]]:
        if self._before is not None and not self._built:
            return self._before["states"]
        return [built.state() for built in self._built]

    def _restore(self, states: list[dict[str, Any]]) -> None:
        before = [[state["name"], state["kind"]] for state in states]
        now = [[built.name, built.kind.name] for built in self._built]
        if before != now:
            raise ValueError(
                f"The journal has the metrics {before}, but they are {now} now. Pass "
                "overwrite=True to begin again."
            )
        for built, state in zip(self._built, states, strict=True):
            built.restore(state)

    def _count(self, stop: int) -> None:
        """Updates the metrics with all rows before `stop`, in another thread."""
        if stop <= self._counted:
            return
        ready, rest = split(join(self._held), stop - self._counted)
        self._wait()
        self._has_failed = True  # an interrupt here leaves it open what is counted
        self._host.begin(self._update, ready)
        self._held, self._counted = [rest], stop
        self._has_failed = False

    def _wait(self) -> None:
        """Waits for that thread; after an error the metrics are of no use."""
        try:
            self._host.wait()
        except BaseException:
            self._has_failed = True
            raise

    def _update(self, rows: HostBatch) -> None:
        try:
            for some in _blocks(rows):
                self._loop.run(some, _BLOCK_ROWS)
        except Exception as error:  # raised by Keras or the user's code
            where = f"rows {rows.start} to {rows.stop}"
            error.add_note(f"Raised while the metrics of {where} were computed.")
            raise

    def _step(self, data: Nest) -> None:
        pairs = tf.nest.map_structure(_wide, data)
        for built in self._built:
            built.metric.update_state(*pairs[built.place])


def _labels_of(batch: HostBatch) -> Nest:
    if batch.marks.targets is not None:
        return batch.marks.targets[0]
    raise ValueError(
        "Received metrics= without labels=, and the elements of x are not (x, y). Pass "
        "labels=, with one row per input row."
    )


def _blocks(rows: HostBatch) -> Iterator[Nest]:
    """Data of rows that were read: of part of a block, or from one on."""
    data, is_read = rows.outputs
    first = min(-rows.start % _BLOCK_ROWS, rows.num_rows)
    starts = [first] if is_read.all() else range(first, rows.num_rows, _BLOCK_ROWS)
    for start, stop in itertools.pairwise([0, *starts, rows.num_rows]):
        some, read = cut((data, is_read), start, stop)
        if not read.all():
            some = tf.nest.map_structure(lambda leaf, read=read: leaf[read], some)
        if read.any():
            yield some


def _wide(leaf: tf.Tensor) -> tf.Tensor:
    is_low = leaf.dtype.is_floating and leaf.dtype.size < tf.float32.size
    return tf.cast(leaf, tf.float32) if is_low else leaf


def _spec(leaf: np.ndarray) -> tf.TensorSpec:
    return tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype)
