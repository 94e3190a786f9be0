"""Ways to compile: the table, and one small run of the script."""

import re

import pytest
import steps


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
def test_a_small_run(run_script):
    size = ["--replicas=2", "--onednn=0", "--seconds=0.05", "--repetitions=2"]
    done = run_script("steps.py", "--models=two_inputs:8", *size)
    assert done.returncode == 0, done.stderr
    *_, head, _, line = done.stdout.splitlines()
    assert head.startswith("| model, batch | oneDNN | replicas | plain, rows/s | froz")
    number, ratio = r"[\d,]+", r"\d+\.\d\d(?: ~)?"
    auto = rf"{ratio} \((?:plain|frozen|xla)\)"
    cells = ["two_inputs, 8", "off", "2", number]
    cells += [ratio, ratio, auto, ratio, ratio]
    assert re.fullmatch(" [|] ".join(["", *cells, ""]).strip(), line), line
