"""The JSON record of one job, from which reports, tables and pictures are made."""

from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.benchmark import machine
from suite.jobs import Job


def record_of(
    job: Job,
    rows: int,
    devices: Sequence[str],
    contenders: dict[str, dict[str, Any]],
    *,
    num_calls: int = 1,
) -> dict[str, Any]:
    """Returns what is kept of a job."""
    return {
        "case": job.case,
        "model": job.model,
        "replicas": job.replicas,
        "per_replica_batch": job.batch,
        "rows": rows,
        "calls_per_sample": num_calls,
        "devices": list(devices),
        **machine.describe(),
        "contenders": contenders,
    }
