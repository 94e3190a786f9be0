"""What each way to compile gains: the table, and one small run of the script."""

import pathlib
import re
import subprocess
import sys

import pytest
import steps

from tests.measuring import inherited_variables

ROOT = str(pathlib.Path(__file__).parents[2])


def contender(*rows_per_second, **more):
    return {"rows_per_second": [*rows_per_second], "rows": 8, "report": {}} | more


def test_what_a_line_shows():
    record = {
        "rows": 8,
        "largest_value": 1.0,
        "contenders": {
            "mgpu_plain": contender(80.0, 100.0),
            "mgpu_frozen": contender(150.0, 90.0, largest_difference=2e-5),
            "mgpu_xla": contender(10.0, rows=2),
            "mgpu_threads": contender(149.0, report={"step": "frozen"}),
            "onnxruntime": {"error": "Fail: no\nsuch|op"},
        },
    }
    assert steps.shown(record) == [
        "100",
        "1.50 (results differ by up to 2.0e-05)",
        "0.10 ~",
        "1.49 (frozen)",
        "– (Fail: no such/op)",
        "– (not installed, or not on a CPU)",
    ]


@pytest.mark.slow
def test_a_small_run():
    size = ["--replicas=2", "--onednn=0", "--seconds=0.05", "--repetitions=2"]
    done = subprocess.run(
        [sys.executable, steps.__file__, "--models=two_inputs:8", *size],
        capture_output=True,
        text=True,
        timeout=600,
        env=inherited_variables() | {"PYTHONPATH": ROOT, "PATH": "/usr/bin:/bin"},
    )
    assert done.returncode == 0, done.stderr
    *_, head, _, line = done.stdout.splitlines()
    assert head.startswith("| model, batch | oneDNN | replicas | plain, rows/s | froz")
    number, ratio = r"[\d,]+", r"\d+\.\d\d(?: ~)?"
    auto = rf"{ratio} \((?:plain|frozen|xla)\)"
    cells = ["two_inputs, 8", "off", "2", number]
    cells += [ratio, ratio, auto, ratio, ratio]
    assert re.fullmatch(" [|] ".join(["", *cells, ""]).strip(), line), line
