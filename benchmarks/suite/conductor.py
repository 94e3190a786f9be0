"""Runs all jobs of the options, each in a new process.

Guarantees: the report is written after every job, so that no measurement is lost if a
later job fails. Imports no TensorFlow.
"""

import dataclasses
import pathlib
import sys
from collections.abc import Callable, Iterator
from typing import Any

from keras_mgpu_strategy.benchmark.processes import run_job
from keras_mgpu_strategy.system import environment
from suite import jobs, provenance

FORMAT = 1
_WORKER = (sys.executable, str(pathlib.Path(__file__).parents[1] / "suite_worker.py"))


def measure(
    options: jobs.Options,
    command: str,
    save: Callable[[dict[str, Any]], None],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Returns the report, which is saved after each job; says what it runs."""
    report: dict[str, Any] = {
        "format": FORMAT,
        "command": command,
        **provenance.describe(),
        "options": dataclasses.asdict(options),
        "runs": [],
    }
    # Once for all jobs: their processes inherit TensorFlow's quiet start.
    with environment.quiet_start():
        for series in jobs.series(options):
            for record in _measure_series(series, say):
                report["runs"].append(record)
                save(report)
    return report


def _measure_series(
    series: jobs.Series, say: Callable[[str], object]
) -> Iterator[dict[str, Any]]:
    found = None
    for replicas in series.options.replicas:
        for job in series.jobs(replicas, found):
            batch = "default" if job.batch is None else job.batch
            say(f"{job.case} {job.model}, batch {batch}, replicas {replicas} ...")
            record = run_job(job, _WORKER)
            found = found or (replicas, record["rows"])
            yield record
