"""Measures one job and returns its record. Runs in a new process.

The record of a contender has `seconds` and `rows_per_second`, one number for each
repetition, or `error` if a baseline cannot run the model. Ours must not fail.
"""

import dataclasses
from collections.abc import Callable
from typing import Any

from keras_mgpu_strategy.benchmark import machine
from keras_mgpu_strategy.benchmark.measure import find_rows, in_turn, seconds_of
from keras_mgpu_strategy.benchmark.rows import make_rows
from keras_mgpu_strategy.types import Nest, cut
from suite import catalog, checking, memory, models
from suite.contenders import CONTENDERS
from suite.interface import Contender, Setting, num_rows
from suite.jobs import Job
from suite.records import record_of

_SMALL_CALL_ROWS = 32
_SMALL_CALLS = 20
_CHECKED_BATCHES = 2


@dataclasses.dataclass(frozen=True)
class Bench:
    """Everything that a job's contenders run on.

    Args:
        setting: Models, devices and batch.
        rows_of: Makes a number of rows.
        reference_of: The right results of some rows.
    """

    setting: Setting
    rows_of: Callable[[int], Nest]
    reference_of: Callable[[Nest], Nest]


def run(job: Job) -> dict[str, Any]:
    """Measures a job."""
    if job.case == "memory":
        return memory.run(job)
    bench = _bench(job)
    total = job.rows or _find_rows(job, bench)
    x = bench.rows_of(total)
    num_calls = _SMALL_CALLS if job.case == "small_calls" else 1
    return record_of(
        job,
        total,
        bench.setting.devices,
        _measure_all(job, bench, x, num_calls),
        num_calls=num_calls,
    )


def _bench(job: Job) -> Bench:
    strategy = _strategy(job)
    plain = models.build(job.model, job.seed)
    with strategy.scope():
        mirrored = models.build(job.model, job.seed)
    mirrored.set_weights(plain.get_weights())
    machine.avoid_failing_xla([plain], strategy)

    def rows_of(count: int) -> Nest:
        return make_rows(plain, job.model, count, job.seed)

    # The reference gets the same batches as a replica.
    setting = Setting(plain, mirrored, strategy, job.batch, rows_of(_batch_rows(job)))
    return Bench(
        setting,
        rows_of,
        lambda x: plain.predict(x, batch_size=job.reference_batch, verbose=0),
    )


def _strategy(job: Job) -> Any:
    shared = job.case == "one_device"
    kind = machine.configure(job.devices, job.replicas if shared else None)
    return machine.make_strategy(kind, job.replicas, shared=shared)


def _batch_rows(job: Job) -> int:
    per_replica = job.batch or -(-_SMALL_CALL_ROWS // job.replicas)
    return per_replica * job.replicas


def _find_rows(job: Job, bench: Bench) -> int:
    if job.case == "small_calls":
        return _SMALL_CALL_ROWS
    plain, multiple = bench.setting.plain, job.row_multiple
    return find_rows(plain, bench.rows_of, bench.reference_of, job.seconds, multiple)


def _measure_all(
    job: Job, bench: Bench, x: Nest, num_calls: int
) -> dict[str, dict[str, Any]]:
    """Checks all contenders, times those that work, then tries odd rows."""
    checked = cut(x, 0, min(num_rows(x), _CHECKED_BATCHES * _batch_rows(job)))
    reference = bench.reference_of(checked)
    ready: dict[str, Contender] = {}
    records: dict[str, dict[str, Any]] = {}

    def check_and_warm_up(contender: Contender) -> dict[str, Any]:
        record = checking.first_call(contender, checked, reference)
        seconds_of(lambda: contender.predict(x), num_calls)
        return record

    try:
        for name in job.contenders:
            records[name] = _prepare(name, bench.setting, ready, check_and_warm_up)
        _time_all(ready, records, x, job.repetitions, num_calls)
        if job.odd_rows:
            _try_odd_rows(ready, records, job, bench)
    finally:
        for contender in ready.values():
            contender.close()
    return records


def _prepare(
    name: str,
    setting: Setting,
    ready: dict[str, Contender],
    check_and_warm_up: Callable[[Contender], dict[str, Any]],
) -> dict[str, Any]:
    """The record of a first run, or of the error with which a baseline ends."""
    try:
        contender = ready[name] = CONTENDERS[name](setting)
        record = check_and_warm_up(contender)
    except Exception as error:
        if name in catalog.OURS:
            raise
        if name in ready:
            ready.pop(name).close()
        return {"error": f"{type(error).__name__}: {str(error)[:300]}"}
    return record | {"start_up_seconds": contender.start_up_seconds}


def _time_all(
    ready: dict[str, Contender],
    records: dict[str, dict[str, Any]],
    x: Nest,
    repetitions: int,
    num_calls: int,
) -> None:
    samples = {
        name: lambda c=contender: seconds_of(lambda: c.predict(x), num_calls)
        for name, contender in ready.items()
    }
    for name, seconds in in_turn(samples, repetitions).items():
        rows = ready[name].rows_run(num_rows(x)) * num_calls
        records[name]["rows_run"] = rows
        records[name]["seconds"] = seconds
        records[name]["report"] = ready[name].report()
        records[name]["rows_per_second"] = [rows / sample for sample in seconds]


def _try_odd_rows(
    ready: dict[str, Contender],
    records: dict[str, dict[str, Any]],
    job: Job,
    bench: Bench,
) -> None:
    x = bench.rows_of(_batch_rows(job) + job.replicas + 1)
    reference = bench.reference_of(x)
    for name, contender in ready.items():
        records[name]["odd_rows"] = checking.odd_rows(contender, x, reference)
