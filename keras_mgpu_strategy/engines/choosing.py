"""The search for the fastest step, by a thread of the first replica of a long run.

It begins when the run has shown that it is long. A candidate is compiled while other
threads run by the first step, and must give the same results for one batch. Then steps
take turns on the next chunks, while no other thread runs any. All results are kept.

A compilation cannot be ended, so its time is predicted, and what would take more than a
tenth of the run is never begun.
"""

import functools
import math
import threading
import time
from collections.abc import Callable

from keras_mgpu_strategy.compute.signatures import StepKind
from keras_mgpu_strategy.compute.sizes import even_round
from keras_mgpu_strategy.engines.adaptive_batch import BatchSize
from keras_mgpu_strategy.engines.context import Context
from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.engines.trials import Trials, failure
from keras_mgpu_strategy.engines.worker_threads import ChunkError
from keras_mgpu_strategy.types import HostBatch, InputBatch

_SECONDS_BEFORE = 0.5
_LEAST_SECONDS = 3.0
_MOST_SHARE_OF_RUN = 0.1
_SECONDS_BEFORE_UNKNOWN = 5.0
_MOST_SECONDS_UNKNOWN = 2.0
_MOST_SECONDS_TO_COMPILE = 8.0  # closing an iterator waits for ten
_LEAST_BATCHES = 16
_LEAST_ROUNDS, _MOST_ROUNDS = 3, 15  # the more, the less other processes matter
_MOST_SMALLER = 4
_WORTH = 1.03
_HOPELESS, _AT_ONCE = 1.5, 6.0  # as slow as that in three rounds, or in one

Put = Callable[[HostBatch], None]


def has_enough_rows(feed: Feed, batch_size: int, num_replicas: int) -> bool:
    """Whether rows are left for which a search can be worth it, as far as is known."""
    left, least = feed.rows_left, _LEAST_BATCHES * batch_size * num_replicas
    return feed.error is None and (left is None or left >= least)


def most_seconds(feed: Feed, seconds_per_row: float) -> float:
    """How long a search may take at this pace: a tenth of the run, or 2 s."""
    left = feed.rows_left
    if left is None:
        return _MOST_SECONDS_UNKNOWN
    return _MOST_SHARE_OF_RUN * left * seconds_per_row


def seconds_to_make(
    kind: StepKind, num_ops: int, weight_bytes: int, batch_seconds: float
) -> float:
    """What a step takes to be made and to run once, within a factor of three.

    Of 15 models of 16 to 3,500 ops, on two busy cores: XLA took 0.6 to 2.7 ms an op,
    and ran convolutions up to 20 times slower; freezing took 0.6 to 1 ms an op, and
    0.03 to 0.1 s a megabyte of weights.
    """
    if kind == "xla":
        return 0.1 + 0.0015 * num_ops + 12 * batch_seconds
    megabytes = weight_bytes / 1e6 if kind == "frozen" else 0.0
    return 0.05 + 0.001 * num_ops + 0.04 * megabytes + batch_seconds


class Search:
    """Gives the batches of a run the fastest of `context.choices`, once."""

    def __init__(
        self,
        context: Context,
        feed: Feed,
        batch: BatchSize,
        most_rows: int,
        make_trials: Callable[[], Trials],
    ):
        self._context, self._feed, self._batch = context, feed, batch
        self._most_rows, self._make_trials = most_rows, make_trials
        self._num_replicas = len(context.devices)
        self._reference: StepKind = context.choices[0]
        # The share of the time to make a step that is lost: others may run meanwhile.
        self._lost = 1.0 if context.is_measured else 0.5
        self._is_over, self._lock = False, threading.Lock()
        self._began: float | None = None
        self._spent = self._budget = 0.0
        self._tried: dict[str, float | str] = {}
        self._is_final = True  # also for later runs, which may be longer

    @functools.cached_property
    def _trials(self) -> Trials:
        """Of the batch when the search begins: memory may have run out before."""
        return self._make_trials()

    def begins(self) -> bool:
        """Whether the calling thread should `run` it; True once.

        The run is long, as far as is known, and its first rows have run.
        """
        if self._is_over:
            return False
        with self._lock:
            is_due = not self._is_over and self._is_due()
            self._is_over |= is_due
        return is_due

    def _is_due(self) -> bool:
        now, left = time.perf_counter(), self._feed.rows_left
        self._began = self._began or now
        if left is None:
            return now - self._began > _SECONDS_BEFORE_UNKNOWN
        if not has_enough_rows(self._feed, self._batch.size, self._num_replicas):
            self._end(self._batch.step)
            return False
        seconds = self._context.chunk_sizes.seconds(left) / self._num_replicas
        return seconds >= _LEAST_SECONDS and now - self._began > _SECONDS_BEFORE

    def run(self, put: Put) -> None:
        """Runs some chunks, puts their results, and changes the step of the batch."""
        size = self._batch.size
        sample = self._feed.take(size)
        if sample is None:
            return
        with self._trials.alone():
            expected, seconds = self._trials.timed(self._reference, sample)
        put(expected)
        self._context.chunk_sizes.restart(seconds / size)
        self._budget = most_seconds(self._feed, seconds / size / self._num_replicas)
        if self._budget < _MOST_SHARE_OF_RUN * _LEAST_SECONDS:
            self._end(self._reference)
            return
        made: list[StepKind] = [self._reference]
        for kind in self._context.choices[1:]:
            if self._feed.is_stopped:  # closing waits for this thread
                return
            if reason := self._make(kind, sample, expected, seconds):
                self._tried[kind] = reason
            else:
                made.append(kind)
        best: dict[StepKind, float] | None = {self._reference: seconds / size}
        if len(made) > 1:
            with self._trials.alone():
                best = self._times(made, put)
        if best is not None:
            self._choose(best)

    def _make(
        self, kind: StepKind, sample: InputBatch, expected: HostBatch, seconds: float
    ) -> str:
        """Makes a step that gives the expected results; returns why it cannot."""
        context = self._context
        known = (self._trials.num_ops(), context.weight_bytes, seconds)
        takes = seconds_to_make(kind, *known)
        reason = f"not tried: it would take {takes:.1f} s to make"
        if takes > _MOST_SECONDS_TO_COMPILE:
            return reason
        # All others make it at the same time, if they do.
        times = 2 if context.makes_each and self._num_replicas > 1 else 1
        if self._spent + takes * times * self._lost > self._budget:
            self._is_final = False
            return f"{reason}, too long for this run"
        began = time.perf_counter()
        reason = self._trials.make(kind, sample, expected)
        self._spent += self._lost * (time.perf_counter() - began)
        return reason

    def _times(self, kinds: list[StepKind], put: Put) -> dict[StepKind, float] | None:
        """The least seconds a row, in turn on equal chunks; None if these run out."""
        size, best = self._batch.size, dict.fromkeys(kinds, math.inf)
        most = self._context.chunk_rows(size, self._most_rows, None)
        rows = even_round(size, most, self._feed.rows_left, self._num_replicas)
        for number in range(_MOST_ROUNDS):
            if number >= _LEAST_ROUNDS and self._spent > self._budget:
                break
            for kind in kinds[:: -1 if number % 2 else 1]:
                chunk = self._full_chunk(rows, put)
                if chunk is None:
                    return None
                best[kind] = min(best[kind], self._time(kind, chunk, put) / rows)
            slowest = (_HOPELESS if number > 1 else _AT_ONCE) * best[self._reference]
            kinds = [k for k in kinds if best[k] < slowest and k not in self._tried]
        return best

    def _full_chunk(self, rows: int, put: Put) -> InputBatch | None:
        """The next chunk of so many rows; smaller ones are run by the first step.

        None if they run out, or if memory has, for the batch that is compared.
        """
        for _ in range(_MOST_SMALLER):
            if self._batch.size < self._trials.size:
                break
            chunk = self._feed.take(rows)
            if chunk is None or chunk.num_rows == rows:
                return chunk
            put(self._trials.timed(self._reference, chunk)[0])
        return None

    def _time(self, kind: StepKind, chunk: InputBatch, put: Put) -> float:
        """Runs a chunk, by the first step if another fails; its seconds."""
        try:
            results, seconds = self._trials.timed(kind, chunk)
        except ChunkError as error:
            if kind == self._reference:
                raise
            self._tried[kind] = failure(error)
            (results, _), seconds = self._trials.timed(self._reference, chunk), math.inf
        else:
            is_work = kind == self._reference and self._num_replicas == 1
            self._spent += 0 if is_work else seconds
        put(results)
        return seconds

    def _choose(self, best: dict[StepKind, float]) -> None:
        """Keeps the fastest step, or the first one unless another is worth it."""
        fastest = min(best, key=best.__getitem__)
        if best[self._reference] < _WORTH * best[fastest]:
            fastest = self._reference
        rates = {kind: 1 / seconds for kind, seconds in best.items()}
        self._tried = rates | self._tried
        self._context.chunk_sizes.restart(best[fastest])
        self._end(fastest)

    def _end(self, step: StepKind) -> None:
        """Keeps a step to the end of the run."""
        self._is_over = True
        if step != self._batch.step:
            self._batch.change(self._batch.size, step)
        # Rows that are taken from now on are run by it, and others perhaps not.
        how = (step, self._feed.position, self._tried)
        self._context.clock.choose_step(*how, for_later=self._is_final)
