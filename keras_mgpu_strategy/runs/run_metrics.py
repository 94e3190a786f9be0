"""Metrics of a run, computed on the host as its results are written.

Rows are counted in blocks that begin at multiples of 256, whatever the chunks, so that
a run that was stopped ends with the same bits: it is resumed at a row from which blocks
can be formed again. Rows that could not be read are left out.
"""

import time
from collections.abc import Callable
from typing import Any

import numpy as np
import tensorflow as tf

from keras_mgpu_strategy.compute.gather import join, rows_from, split
from keras_mgpu_strategy.metrics.state import BuiltMetric, on_host
from keras_mgpu_strategy.outputs.metric_states import Record
from keras_mgpu_strategy.runs.asked_metrics import AskedMetrics
from keras_mgpu_strategy.runs.labels import Labels
from keras_mgpu_strategy.runs.model_rows import ModelRows
from keras_mgpu_strategy.types import HostBatch

_BLOCK_ROWS = 256
# Of all lines of a journal that grows for days; longer pauses spread them.
_RECORDED_BYTES = 2**24


class RunMetrics:
    """The metrics of one run, of the rows in its range of the input."""

    def __init__(self, asked: AskedMetrics, labels: Labels, rows: ModelRows):
        self.settings = {"metrics": asked.identity(), **labels.settings()}
        self._asked, self._labels = asked, labels
        self._built: list[BuiltMetric] = []
        self._before: Record | None = None
        self._held: list[HostBatch] = []
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
        self._pick, self._built = self._asked.built(
            batch.outputs, self._labels.spec(batch)
        )
        for built in self._built if in_shards else ():
            built.check_additive()
        if self._before is not None:
            self._restore(self._before["states"])
        some = self._pick(self._labels.spec(batch), batch.outputs)
        self._update = on_host(lambda: self._traced(*some))

    def add(self, batch: HostBatch) -> None:
        """Takes rows that were written; those that were counted before are dropped."""
        batch = rows_from(batch, self._next)
        if not batch.num_rows:
            return
        labels, outputs = self._pick(self._labels.take(batch), batch.outputs)
        missing = batch.marks.missing
        is_read = np.ones(batch.num_rows, bool) if missing is None else ~missing
        self._held.append(HostBatch(batch.start, (labels, outputs, is_read)))
        self._next = batch.stop
        self._count(self._next - self._next % _BLOCK_ROWS)

    def end(self) -> None:
        """Counts the rows that do not fill a block, after the last row of the run."""
        self._labels.check_end(self._next)
        self._count(self._next)

    def record(self, *, always: bool) -> Record | None:
        """The states for the journal; None if it is too soon for states of that size.

        Unless `always`, all records together have few times `_RECORDED_BYTES`.
        """
        now = time.monotonic()
        num_bytes = sum(built.num_bytes for built in self._built)
        pause = (now - self._began) * num_bytes / _RECORDED_BYTES
        if not always and now - self._recorded_at < pause:
            return None
        self._recorded_at, self.recorded = now, self._counted
        return {"row": self._counted, "states": [b.state() for b in self._built]}

    def values(self) -> dict[str, Any]:
        """The results by name: numbers, or lists of them."""
        found: dict[str, Any] = {}
        for built in self._built:
            found |= built.values()
        return found

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
        """Updates the metrics with all rows before `stop`."""
        if stop <= self._counted:
            return
        ready, rest = split(join(self._held), stop - self._counted)
        labels, outputs, is_read = ready.outputs
        first = self._counted - self._counted % _BLOCK_ROWS + _BLOCK_ROWS
        ends = np.array([*range(first, stop, _BLOCK_ROWS), stop]) - self._counted
        if not is_read.all():
            labels, outputs = tf.nest.map_structure(
                lambda array: array[is_read], (labels, outputs)
            )
            ends = np.unique(np.cumsum(is_read)[ends - 1])
        with tf.device("CPU:0"):
            given = tf.nest.map_structure(tf.constant, (labels, outputs))
            self._update(*given, tf.constant(ends[ends > 0]))
        self._held, self._counted = [rest], stop

    def _traced(self, labels: Any, outputs: Any) -> Callable[..., Any]:
        """Updates with several blocks in one call, which costs little more than one."""
        pairs = [(built.metric, built.place) for built in self._built]

        def update(labels: Any, outputs: Any, ends: tf.Tensor) -> None:
            def block(index: tf.Tensor, start: tf.Tensor) -> tuple[Any, Any]:
                stop = ends[index]
                for metric, place in pairs:
                    some = labels[place][start:stop], outputs[place][start:stop]
                    metric.update_state(*some)
                return index + 1, stop

            def is_left(index: tf.Tensor, start: tf.Tensor) -> tf.Tensor:
                del start
                return index < tf.size(ends)

            begin = 0, tf.zeros((), ends.dtype)
            tf.while_loop(is_left, block, begin, parallel_iterations=1)

        def spec(leaf: Any) -> tf.TensorSpec:
            return tf.TensorSpec((None, *leaf.shape[1:]), leaf.dtype)

        specs = tf.nest.map_structure(spec, (labels, outputs))
        ends = tf.TensorSpec((None,), tf.int64)
        return tf.function(update, autograph=False).get_concrete_function(*specs, ends)
