"""The search for the fastest step, on stand-ins whose speed is known.

Each replica has its own clock, which advances only by the steps that it runs.
"""

import collections
import dataclasses
import re
import threading
import types

import numpy as np
import pytest
import tensorflow as tf

from keras_mgpu_strategy.compute.signatures import SpecMemory
from keras_mgpu_strategy.engines import choosing, trials
from keras_mgpu_strategy.engines.context import ChunkSizes, Context
from keras_mgpu_strategy.engines.feed import Feed
from keras_mgpu_strategy.engines.threads import ThreadsEngine
from keras_mgpu_strategy.inputs import as_source
from keras_mgpu_strategy.report import StageClock
from keras_mgpu_strategy.types import HostBatch
from tests import helpers

BATCH = 8
CPU = ("plain", "frozen", "xla")


class Clock:
    """The time of the calling thread's replica; advances only by steps that run."""

    def __init__(self):
        self.times = collections.Counter()
        self.num_devices = 1

    @property
    def replica(self):
        number = threading.current_thread().name.rpartition("mgpu-worker-")[2]
        return int(number) % self.num_devices if number.isdecimal() else -1

    def perf_counter(self):
        return self.times[self.replica]


class Steps:
    """A `ChunkRunner` whose steps take known times; results show which step ran."""

    def __init__(
        self, clock, per_batch, to_make=None, fails=None, apart=None, num_ops=10
    ):
        self.clock, self._per_batch = clock, per_batch
        self._to_make, self._fails = to_make or {}, fails or {}
        self._apart = {"plain": 0.0, "frozen": 1e-7, "xla": 2e-7} | (apart or {})
        self._num_ops = num_ops
        self.made, self._changed = {"plain"}, threading.Condition()
        self.seconds = dict.fromkeys(CPU, 0.0)  # of the first replica
        self.chunks = []  # first row, rows, replica, step

    def begin_run(self):
        pass

    def num_ops(self):
        return self._num_ops

    def run(self, chunk, batch, replica, track):
        with track.turn(lambda: None) as turn:
            turn.copy()
            turn.launch()
            return self._run(chunk, batch.step, replica)

    def _run(self, chunk, step, replica):
        fails = self._fails.get(step, lambda chunk, made: None)
        fails(chunk, step in self.made)
        seconds = self._per_batch[step] * -(-chunk.num_rows // BATCH)
        if step not in self.made:
            self.made.add(step)
            seconds += self._to_make.get(step, 0.0)
        with self._changed:
            times = self.clock.times
            times[replica] += seconds
            self._changed.notify_all()
            if replica:  # no faster than the first while that has rows
                near = times[replica] - 0.1
                self._changed.wait_for(lambda: times[0] >= near, timeout=0.1)
            self.seconds[step] += seconds if replica == 0 else 0.0
            self.chunks.append((chunk.start, chunk.num_rows, replica, step))
        self.context.chunk_sizes.record(max(chunk.num_rows, 1), seconds)
        rows = chunk.inputs[: chunk.num_rows]
        return HostBatch(chunk.start, rows * (2.0 + self._apart[step]))

    def steps_of(self, last):
        """The steps that ran the last chunks."""
        return {step for *_, step in sorted(self.chunks)[-last:]}


@pytest.fixture
def clock(monkeypatch):
    clock = Clock()
    for module in (choosing, trials):
        monkeypatch.setattr(
            module, "time", types.SimpleNamespace(perf_counter=clock.perf_counter)
        )
    return clock


def context_of(steps, num_devices=1, choices=CPU, **more):
    steps.clock.num_devices = num_devices
    steps.context = Context(
        devices=tuple("abc"[:num_devices]),
        specs=SpecMemory(),
        chunk_sizes=ChunkSizes(num_devices),
        clock=StageClock(num_devices),
        spec=tf.TensorSpec([None, 2], tf.float32),
        choices=choices,
        step=choices[0],
        tries=True,
        **more,
    )
    return steps.context


def run(steps, rows, by=None, **more):
    """Checks the results and returns the report; rows come `by` at a time if given."""
    context = context_of(steps, **more)
    engine = ThreadsEngine(context, steps)
    with helpers.no_thread_left():
        given = (
            rows if by is None else (rows[i : i + by] for i in range(0, len(rows), by))
        )
        batches = list(engine.run(as_source(given), BATCH))
    np.testing.assert_allclose(helpers.joined(batches), 2 * rows, rtol=1e-6)
    assert [b.start for b in batches[1:]] == [b.stop for b in batches[:-1]]
    return context.clock.report()


ROWS = helpers.numbered_rows(BATCH * 2000)


@pytest.mark.parametrize("num_devices", [1, 3])
@pytest.mark.parametrize(
    ("frozen", "xla", "best"),
    [
        (0.008, 0.009, "frozen"),
        (0.02, 0.005, "xla"),
        (0.0098, 0.0099, "plain"),  # too little to be sure
        (0.02, 0.12, "plain"),
    ],
)
def test_the_fastest_step_is_chosen(frozen, xla, best, num_devices, clock):
    steps = Steps(clock, {"plain": 0.01, "frozen": frozen, "xla": xla})
    report = run(steps, ROWS, num_devices=num_devices)
    assert report.step == best == steps.context.clock.best_step
    rates = {"plain": 800, "frozen": BATCH / frozen, "xla": BATCH / xla}
    assert report.tried_steps == pytest.approx(rates)
    assert steps.steps_of(20) == {best}
    # It runs all rows that are taken after the choice.
    by = [(start, step) for start, *_, step in sorted(steps.chunks)]
    last = max(start for start, step in by if step != best or best == "plain")
    settled = [r for r, _ in by if steps.context.clock.settled_step(r) == best]
    assert settled[0] > last or best == "plain"
    assert {step for start, step in by if start >= settled[0]} == {best}
    assert {step for _, _, replica, step in steps.chunks if replica} <= {"plain", best}
    others = [seconds for step, seconds in steps.seconds.items() if step != best]
    if best == "plain":  # 20 s on each replica, or more
        assert sum(others) < 0.1 * 20 / num_devices


@pytest.mark.parametrize("rows", [0, 1, 7, 8, 9, 500, BATCH * 200 + 3])
def test_short_runs_never_search(rows, clock):
    steps = Steps(clock, {"plain": 0.01, "frozen": 0.001, "xla": 0.001})
    report = run(steps, ROWS[:rows], num_devices=2)
    assert (report.step, report.tried_steps) == ("plain", {})
    assert steps.steps_of(len(steps.chunks)) == {"plain"}
    assert steps.context.clock.best_step is None


@pytest.mark.parametrize("more", [{"choices": ("plain",)}, {"tries": False}])
def test_nothing_is_tried_if_the_step_is_known(more, clock):
    steps = Steps(clock, {"plain": 0.01, "frozen": 0.001, "xla": 0.001})
    context = context_of(steps)
    steps.context = context = dataclasses.replace(context, **more)
    for _ in ThreadsEngine(context, steps).run(as_source(ROWS), BATCH):
        # A run that is resumed uses the same step.
        assert context.clock.settled_step(0) == "plain"
    assert steps.steps_of(len(steps.chunks)) == {"plain"}


@pytest.mark.parametrize("rows", [*range(3000, 3020), 4096, 9999])
@pytest.mark.parametrize("num_devices", [1, 2])
def test_rows_are_those_of_the_input_for_every_count(rows, num_devices, clock):
    steps = Steps(clock, {"plain": 0.05, "frozen": 0.02, "xla": 0.06})
    assert run(steps, ROWS[:rows], num_devices=num_devices).step == "frozen"


def test_rows_of_a_stream_are_compared_when_it_has_run_for_a_while(clock):
    steps = Steps(clock, {"plain": 0.01, "frozen": 0.005, "xla": 0.006})
    report = run(steps, ROWS, by=100)
    assert report.step == "frozen"
    began = min(start for start, *_, step in steps.chunks if step != "plain")
    assert began * 0.01 / BATCH > 5


def test_the_reference_may_be_xla(clock):
    choices = ("xla", "plain", "frozen")
    steps = Steps(clock, {"plain": 0.01, "frozen": 0.02, "xla": 0.02})
    report = run(steps, ROWS, choices=choices)
    assert (report.step, {*report.tried_steps}) == ("plain", {*choices})


def test_results_that_differ_are_not_used(clock):
    costs = {"plain": 0.01, "frozen": 0.001, "xla": 0.001}
    steps = Steps(clock, costs, apart={"frozen": 1e-3})
    report = run(steps, ROWS)
    assert report.step == "xla"
    said = report.tried_steps["frozen"]
    assert re.fullmatch(r"dropped: its results differ by 5\.\de-04", said)
    assert [step for *_, step in steps.chunks].count("frozen") == 1


def failing(when):
    """Fails when the step is made, or later."""

    def fails(chunk, made):
        if made is when:
            raise ValueError("No kernel.\nMore")

    return fails


@pytest.mark.parametrize("made", [False, True])
def test_steps_that_fail_are_not_used(made, clock):
    costs = {"plain": 0.01, "frozen": 0.001, "xla": 0.005}
    steps = Steps(clock, costs, fails={"frozen": failing(made)})
    report = run(steps, ROWS, num_devices=2)
    assert (report.step, report.tried_steps["frozen"]) == ("xla", "failed: No kernel.")


def test_steps_that_take_too_long_to_make_are_not_tried(clock):
    costs = {"plain": 0.01, "frozen": 0.001, "xla": 0.001}
    steps = Steps(clock, costs, num_ops=6000)
    report = run(steps, ROWS)
    said = "not tried: it would take 9.2 s to make"
    assert report.tried_steps["xla"] == said
    said = "not tried: it would take 6.1 s to make, too long for this run"
    assert report.tried_steps["frozen"] == said
    assert steps.steps_of(len(steps.chunks)) == {"plain"}
    assert steps.context.clock.best_step is None  # a later run may be longer
    assert steps.context.clock.settled_step(len(ROWS)) == "plain"


def test_weights_count_if_they_are_frozen(clock):
    steps = Steps(clock, {"plain": 0.01, "frozen": 0.001, "xla": 0.011})
    report = run(steps, ROWS, weight_bytes=3 * 10**8)
    assert report.tried_steps["frozen"].startswith("not tried: it would take 12.1 s")


@pytest.mark.parametrize("number", range(6))
@pytest.mark.parametrize("num_devices", [1, 3])
def test_a_row_that_fails_within_the_search(number, num_devices, clock):
    """In some chunk after the last step was made, whichever step runs it."""
    rows = []

    def fails(chunk, made):
        if "xla" in steps.made and steps.clock.replica == 0:
            rows.append(chunk.start)
        if number + 1 < len(rows) and chunk.start == rows[number + 1]:
            raise LookupError(f"row {chunk.start}")

    steps = Steps(clock, dict.fromkeys(CPU, 0.01), fails=dict.fromkeys(CPU, fails))
    engine = ThreadsEngine(context_of(steps, num_devices), steps)
    delivered = []
    with helpers.no_thread_left(), pytest.raises(LookupError) as caught:
        for batch in engine.run(as_source(ROWS), BATCH):
            delivered.append(batch)
    assert str(caught.value) == f"row {delivered[-1].stop}"
    assert steps.context.clock.settled_step(len(ROWS)) is None


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_batch_that_shrinks_within_the_search_loses_no_row(num_devices, clock):
    """As when the first step runs out of memory while steps take turns."""
    steps = Steps(clock, dict.fromkeys(CPU, 0.01))
    ran = steps.run

    def run_smaller(chunk, batch, *others):
        if "xla" in steps.made and (batch.step, batch.size) == ("plain", BATCH):
            batch.change(BATCH // 2)
        return ran(chunk, batch, *others)

    steps.run = run_smaller
    assert run(steps, ROWS, num_devices=num_devices).step == "plain"


@pytest.mark.parametrize("num_devices", [1, 2])
def test_a_batch_that_shrinks_before_the_search_is_that_of_the_search(
    num_devices, clock
):
    steps = Steps(clock, {"plain": 0.01, "frozen": 0.005, "xla": 0.01})
    ran, sizes = steps.run, set()

    def run_smaller(chunk, batch, *others):
        if batch.step == "plain" and batch.size == BATCH:
            batch.change(BATCH // 2)
        sizes.add(batch.size)
        return ran(chunk, batch, *others)

    steps.run = run_smaller
    assert run(steps, ROWS, num_devices=num_devices).step == "frozen"
    assert sizes == {BATCH // 2}


def test_the_search_waits_for_no_thread_in_particular(clock, monkeypatch):
    """As where one thread of the first replica gets few of its chunks."""
    steps, began = Steps(clock, dict.fromkeys(CPU, 0.01)), threading.Event()
    ran, search = steps.run, choosing.Search.run

    def run_late(*how):
        if threading.current_thread().name.endswith("mgpu-worker-0"):
            assert began.wait(30), "no other thread has begun it"
        return ran(*how)

    def begin(*how):
        began.set()
        search(*how)

    steps.run = run_late
    monkeypatch.setattr(choosing.Search, "run", begin)
    assert {*run(steps, ROWS).tried_steps} == {*CPU}


def test_no_step_is_made_after_the_iterator_is_closed(clock, monkeypatch):
    making, closed = threading.Event(), threading.Event()

    def wait(chunk, made):
        if not made:
            making.set()
            assert closed.wait(30)

    def stop(feed):
        feed.is_stopped = True
        closed.set()

    monkeypatch.setattr(Feed, "stop", stop)
    steps = Steps(clock, dict.fromkeys(CPU, 0.01), fails={"frozen": wait})
    batches = ThreadsEngine(context_of(steps), steps).run(as_source(ROWS), BATCH)
    with helpers.no_thread_left():
        for _ in batches:
            if making.is_set():
                break
        batches.close()
    assert steps.made == {"plain", "frozen"}


@pytest.mark.parametrize("stop_at", [BATCH * n for n in (50, 52, 54, 58, 70)])
def test_a_search_that_is_closed_leaves_no_thread(stop_at, clock):
    steps = Steps(clock, {"plain": 0.01, "frozen": 0.005, "xla": 0.01})
    context = context_of(steps, 2)
    with helpers.no_thread_left():
        batches = ThreadsEngine(context, steps).run(as_source(ROWS), BATCH)
        for batch in batches:
            if batch.stop >= stop_at:
                break
        batches.close()


@pytest.mark.parametrize(
    ("expected", "found", "said"),
    [
        (np.float32([1, 2, np.nan]), np.float32([1, 2.00001, np.nan]), ""),
        (np.float32([1, 2]), np.float32([1, 2.0001]), "by 5.0e-05"),
        (np.float32([0, 2]), np.float32([1e-5, 2]), ""),
        (np.float32([1, np.nan]), np.float32([1, 2]), "by nan"),
        (np.float32([1, np.inf]), np.float32([1, np.inf]), ""),
        (np.float32([1, np.inf]), np.float32([1, 5]), "by inf"),
        (np.float32([]), np.float32([]), ""),
        (np.float16([1, 2]), np.float16([1, 2.001]), ""),
        (np.float16([1, 2]), np.float16([1, 2.01]), "by"),
        (np.int64([1, 2]), np.int64([1, 3]), "results differ"),
        (np.array([b"a"], object), np.array([b"b"], object), "results differ"),
        (np.float32([1, 2]), np.float64([1, 2]), "other shapes"),
    ],
)
def test_which_results_are_the_same(expected, found, said):
    nest = {"a": np.int32([1]), "b": expected}
    answer = trials.difference(nest, {"a": np.int32([1]), "b": found})
    assert said in answer and bool(said) == bool(answer)
