"""The interpreter exits in the middle of runs: no hang, crash or traceback."""

import os
import pathlib
import subprocess
import sys

import pytest

from tests.lifetime import exiting

ROOT = pathlib.Path(__file__).parents[2]


@pytest.mark.slow
def test_the_interpreter_ends_in_the_middle_of_a_run():
    done = subprocess.run(
        [sys.executable, "-m", "tests.lifetime.exiting"],
        cwd=ROOT,
        env=os.environ | {"TF_CPP_MIN_LOG_LEVEL": "3"},
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        timeout=500,
    )
    ended = {}
    for line in done.stdout.splitlines():
        engine, name, code, _, *text = line.split(maxsplit=4)
        ended[engine, name] = (code, *text)
    assert ended == {
        (engine, case.__name__): ("0",) for engine, case in exiting.CASES
    } | {("threads", "an_error_within"): ("1", "the user's own")}
