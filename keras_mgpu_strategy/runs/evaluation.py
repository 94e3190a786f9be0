"""`evaluate`: losses and metrics of all rows, in one pass.

The devices give outputs, in the order of the rows; Keras' own test step takes them on
the host, in the batches of a single device. So the numbers do not depend on devices.
"""

import contextlib
import dataclasses
from collections.abc import Callable, Generator, Iterable, Iterator
from typing import Any

import numpy as np

from keras_mgpu_strategy.compute import gather, heads
from keras_mgpu_strategy.compute.signatures import row_bytes
from keras_mgpu_strategy.inputs import labelled
from keras_mgpu_strategy.models import Criteria
from keras_mgpu_strategy.runs.callbacks import EvaluationWatch, Verbose, check_verbose
from keras_mgpu_strategy.runs.judging import Judge
from keras_mgpu_strategy.runs.progress import shown_in_kernel
from keras_mgpu_strategy.runs.run import Run, Runner
from keras_mgpu_strategy.runs.token_labels import (
    check_padding,
    fitting_targets,
    is_ragged,
    padded_block,
)
from keras_mgpu_strategy.sources.in_step import check_label_end
from keras_mgpu_strategy.sources.marks import marks_of
from keras_mgpu_strategy.sources.pad import Pad
from keras_mgpu_strategy.sources.targets import ByColumn, OfElements
from keras_mgpu_strategy.system.integers import ceil_div
from keras_mgpu_strategy.system.messages import explaining_interrupt
from keras_mgpu_strategy.types import HostBatch, Source, cut

_KERAS_BATCH = 32
# Of one call of the judge.
_MOST_BATCHES = 64
_MOST_BYTES = 2**24


class Evaluator:
    """Evaluates one model; keeps compiled losses and metrics for the next time."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._kept: list[Judge] = []

    @explaining_interrupt(
        "An interrupted evaluation returns nothing. predict_to(path, x, labels=y, "
        "metrics=[...], resume=True) computes metrics and can be resumed."
    )
    def evaluate(
        self,
        x: Any,
        y: Any,
        batch_size: int | None,
        verbose: Verbose,
        sample_weight: Any,
        steps: int | None,
        callbacks: Any,
        *,
        return_dict: bool,
        pad: Pad | None,
    ) -> Any:
        """Loss and metrics of all rows; see `Predictor.evaluate`."""
        level = check_verbose(verbose)
        backend = self._runner.backend
        if y is None and sample_weight is not None:
            raise ValueError(
                "Received sample_weight without y, expected labels with it: y=..., or "
                "elements (x, y, sample_weight) of a generator or data set."
            )
        given = {"y": y, "sample_weight": sample_weight}
        ragged = None if pad is None else len(backend.called or [None])
        rows = labelled(x, given, (), steps, as_keras=True, num_ragged=ragged)
        rows |= {"batch_size": batch_size, "steps": steps, "pad": pad}
        run = self._runner.prepare(head=heads.evaluation, **rows)
        criteria = backend.criteria(run.rows.spec)
        size = _batch_size(run, batch_size, steps)
        model = backend.model if callbacks else None
        watch = EvaluationWatch(callbacks, model, _num_batches(run, size, steps), level)
        with self._judge(criteria) as judge:
            if not isinstance(run.rows.whole, OfElements | ByColumn):
                targets = marks_of(run.rows.whole)(0, 0).targets
                judge.prepare(criteria.outputs, targets or ())
            most = 1 if callbacks else _at_once(run, criteria, size)
            with contextlib.closing(_blocks(run, size, most, verbose)) as blocks:
                dense = _without_ragged(blocks, size, judge)
                done = _judge_all(dense, size, judge, watch)
            watch.end(done, logs := judge.logs())
            return logs if return_dict else judge.in_order(logs)

    @contextlib.contextmanager
    def _judge(self, criteria: Criteria) -> Iterator[Judge]:
        """A judge that no other thread uses, and that has seen no row."""
        kept = self._kept.pop() if self._kept else None
        judge = kept if kept and kept.is_for(criteria) else Judge(criteria)
        with judge.begun(criteria):
            yield judge
        self._kept = [judge]


def _without_ragged(
    blocks: Iterable[HostBatch], size: int | None, judge: Judge
) -> Iterator[HostBatch]:
    """Pads what has a value for each token, once padding is seen not to count."""
    is_tried = False
    for block in blocks:
        if is_ragged(block.outputs):
            if not is_tried and block.num_rows:
                check_padding(cut(block.outputs, 0, size), judge.logs_of)
                is_tried = True
            block = dataclasses.replace(block, outputs=padded_block(*block.outputs))
        yield block


def _batch_size(run: Run, wanted: int | None, steps: int | None) -> int | None:
    """Rows of the batches of a single device; None for those of a stream itself."""
    if isinstance(run.rows.whole, OfElements):
        return None
    rows = run.rows.source.num_rows
    if wanted is None and steps and rows:
        return ceil_div(rows, steps)
    return wanted or _KERAS_BATCH


def _at_once(run: Run, criteria: Criteria, size: int | None) -> int:
    """How many batches are judged in one call."""
    num_bytes = (size or 1) * row_bytes(criteria.outputs, run.rows.longest)
    return max(min(_MOST_BATCHES, _MOST_BYTES // max(num_bytes, 1)), 1)


def _num_batches(run: Run, size: int | None, steps: int | None) -> int | None:
    rows = run.rows.source.num_rows
    return steps if size is None or rows is None else ceil_div(rows, size)


def _blocks(
    run: Run, size: int | None, most: int, verbose: Verbose
) -> Generator[HostBatch, None, None]:
    """Outputs and targets of up to `most` whole batches; of one if it has no `size`."""
    next_size = _next_element(run) if size is None else lambda: size * most
    with shown_in_kernel(run, verbose) as results:
        yield from gather.resplit(_with_targets(results, run.rows.whole), next_size)


def _next_element(run: Run) -> Callable[[], int | None]:
    sizes = getattr(run.rows.whole, "sizes", ())
    return lambda: sizes.popleft() if sizes else None


def _with_targets(batches: Iterable[HostBatch], whole: Source) -> Iterator[HostBatch]:
    """Puts targets next to the outputs, so that both are cut at the same rows."""
    stop = 0
    for batch in batches:
        stop = batch.stop
        missing = batch.marks.missing
        if missing is not None and missing.any():
            raise ValueError(
                f"Row {batch.start + int(np.argmax(missing))} could not be read, and "
                "losses and metrics need every row. Leave it out of x and y."
            )
        if batch.num_rows:
            targets = fitting_targets(batch.outputs, batch.marks.targets or ())
            yield HostBatch(batch.start, (batch.outputs, targets))
    check_label_end(whole, stop)


def _judge_all(
    blocks: Iterable[HostBatch],
    size: int | None,
    judge: Judge,
    watch: EvaluationWatch,
) -> int:
    """Returns how many batches there were."""
    done = 0
    watch.begin()
    for block in blocks:
        batch_size = size or block.num_rows
        watch.before(done)
        judge.begin_adding(block.outputs, batch_size)
        done += ceil_div(block.num_rows, batch_size)
        if watch.is_due():
            watch.after(done, judge.logs())
        if watch.is_stopped():
            break
    if not done:
        raise ValueError(
            "x has no rows, and losses and metrics of no rows are not defined. "
            "Expected one or more."
        )
    return done
