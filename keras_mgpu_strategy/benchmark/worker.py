"""The program of the process that measures one job.

Reads a job from a JSON file and writes its record, or `{"bad_input": text}` if the job
asks for something missing. Any other error ends it with a traceback.
"""

import json
import pathlib
import sys

from keras_mgpu_strategy.benchmark import measure
from keras_mgpu_strategy.benchmark.jobs import Job


def main(job_path: str, record_path: str) -> None:
    """Measures the job in `job_path`.

    Args:
        job_path: JSON of a `Job`.
        record_path: File to write.
    """
    fields = json.loads(pathlib.Path(job_path).read_bytes())
    job = Job(**{**fields, "contenders": tuple(fields["contenders"])})
    try:
        record = measure.run(job)
    except ValueError as error:
        record = {"bad_input": str(error)}
    pathlib.Path(record_path).write_text(json.dumps(record), "utf-8")


if __name__ == "__main__":
    main(*sys.argv[1:])
