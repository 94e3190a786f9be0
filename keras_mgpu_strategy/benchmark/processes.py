"""A process for each measurement, since logical devices cannot change in one.

Imports no TensorFlow.
"""

import dataclasses
import json
import pathlib
import subprocess
import sys
import tempfile
from collections.abc import Callable, Sequence
from typing import Any

_PROGRAM = (sys.executable, "-m", "keras_mgpu_strategy.benchmark.measure")


def run_job(job: Any, program: Sequence[str] = _PROGRAM) -> dict[str, Any]:
    """Measures in a process of its own; ValueError if the job is at fault."""
    with tempfile.TemporaryDirectory(prefix="mgpu-") as folder:
        path = pathlib.Path(folder, "record.json")
        words = [json.dumps(dataclasses.asdict(job)), str(path)]
        done = subprocess.run([*program, *words])
        if done.returncode != 0:
            raise RuntimeError(
                f"Measuring failed with exit code {done.returncode}; "
                "its messages are above."
            )
        record = json.loads(path.read_bytes())
    if "bad_input" in record:
        raise ValueError(record["bad_input"])
    return record


def serve(run: Callable[..., dict[str, Any]], job: str, record_path: str) -> None:
    """Calls `run` with the job's fields and writes what it returns.

    A ValueError is bad input; any other error ends the process with a traceback.
    """
    try:
        record = run(**json.loads(job))
    except ValueError as error:
        record = {"bad_input": str(error)}
    pathlib.Path(record_path).write_text(json.dumps(record), "utf-8")
