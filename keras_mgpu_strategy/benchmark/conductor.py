"""Runs all jobs of the options, each in a process of its own.

Guarantees: the report is written after every job, so that what was measured is not
lost when a later job fails. Imports no TensorFlow.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from typing import Any

from keras_mgpu_strategy.benchmark import jobs, provenance
from keras_mgpu_strategy.system import environment

FORMAT = 1


def measure(
    options: jobs.Options,
    command: str,
    save: Callable[[dict[str, Any]], None],
    say: Callable[[str], object],
) -> dict[str, Any]:
    """Measures everything, and returns the report.

    Args:
        options: What to measure.
        command: The command line, for the report.
        save: Called with the report after each job.
        say: Called with a line before each job.

    Raises:
        ValueError: If a job asks for missing devices or a missing model.
        RuntimeError: If a job fails.
    """
    report: dict[str, Any] = {
        "format": FORMAT,
        "command": command,
        **provenance.describe(),
        "options": dataclasses.asdict(options),
        "runs": [],
    }
    # Once for all jobs, whose processes inherit the quiet start of TensorFlow.
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
            record = run_job(job)
            found = found or (replicas, record["rows"])
            yield record


def run_job(job: jobs.Job) -> dict[str, Any]:
    """Measures one job in a process of its own.

    Raises:
        ValueError: If the job asks for devices or a model that are not there.
        RuntimeError: If the process fails; it has printed why.
    """
    with tempfile.TemporaryDirectory(prefix="mgpu-") as folder:
        job_path, record_path = (
            pathlib.Path(folder, name) for name in ("job.json", "record.json")
        )
        job_path.write_text(json.dumps(dataclasses.asdict(job)), "utf-8")
        program = [sys.executable, "-m", "keras_mgpu_strategy.benchmark.worker"]
        done = subprocess.run([*program, str(job_path), str(record_path)])
        if done.returncode != 0:
            raise RuntimeError(
                f"Measuring {job.model} on {job.replicas} replicas failed with exit "
                f"code {done.returncode}; its messages are above."
            )
        record = json.loads(record_path.read_bytes())
    if "bad_input" in record:
        raise ValueError(record["bad_input"])
    return record
