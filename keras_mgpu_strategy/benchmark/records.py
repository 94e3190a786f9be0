"""The JSON record of one job, which reports, tables and pictures are made of."""

from collections.abc import Sequence
from typing import Any

from keras_mgpu_strategy.benchmark import machine
from keras_mgpu_strategy.benchmark.jobs import Job


def record_of(
    job: Job,
    rows: int,
    devices: Sequence[str],
    contenders: dict[str, dict[str, Any]],
    *,
    num_calls: int = 1,
    ideal_rows_per_second: float | None = None,
) -> dict[str, Any]:
    """What is kept of a job.

    Args:
        job: The job.
        rows: Rows of a call.
        devices: Full name of each replica's device.
        contenders: Name -> what was measured of it.
        num_calls: Calls that a sample consists of.
        ideal_rows_per_second: Sum of the speeds of simulated devices.
    """
    return {
        "case": job.case,
        "model": job.model,
        "replicas": job.replicas,
        "per_replica_batch": job.batch,
        "slow_factor": job.slow_factor,
        "rows": rows,
        "calls_per_sample": num_calls,
        "devices": list(devices),
        "intra_op_threads": machine.intra_op_threads(),
        "ideal_rows_per_second": ideal_rows_per_second,
        "contenders": contenders,
    }
