"""Whole runs of the script, each over a few rows, in new processes."""

import json

import pytest


@pytest.fixture
def report_of(run_script, tmp_path):
    def report_of(*words):
        done = run_script("predict_benchmark.py", *words, f"--output={tmp_path}")
        assert done.returncode == 0, done.stderr
        (path,) = tmp_path.glob("*.json")
        report = json.loads(path.read_text())
        assert path.with_suffix(".md").read_text().strip() == done.stdout.strip()
        return report

    return report_of


@pytest.mark.slow
def test_two_replicas(report_of):
    names = ["keras", "make_parallel", "processes", "mgpu_threads", "limit"]
    report = report_of(
        "--model=tiny",
        "--replicas=2",
        "--batch=8",
        "--rows=64",
        "--repetitions=2",
        "--devices=cpu",
        f"--contenders={','.join(names)}",
    )
    assert report["format"] == 1
    assert report["versions"]["tensorflow"]
    assert report["machine"]["cpu_count"] >= 1
    assert report["command"].startswith(
        "python benchmarks/predict_benchmark.py --model"
    )
    (run,) = report["runs"]
    assert (run["model"], run["replicas"], run["rows"]) == ("tiny", 2, 64)
    devices = [name.rpartition("device:")[2] for name in run["devices"]]
    assert devices == ["CPU:0", "CPU:1"]
    assert list(run["contenders"]) == names
    for record in run["contenders"].values():
        assert "error" not in record
        assert len(record["seconds"]) == len(record["rows_per_second"]) == 2
        assert record["rows_run"] == 64
        assert record["first_call_seconds"] > 0
    odd = {name: record["odd_rows"] for name, record in run["contenders"].items()}
    assert odd["make_parallel"] == {"rows_in": 19, "rows_out": 18, "dropped": 1}
    for name in ("keras", "processes", "mgpu_threads"):
        assert odd[name] == {"rows_in": 19, "rows_out": 19, "dropped": 0}
    own_report = run["contenders"]["mgpu_threads"]["report"]
    assert own_report["rows"] == 64
    assert own_report["batch_size"] == 8
    assert sum(own_report["shares"].values()) == pytest.approx(1)
    assert run["contenders"]["keras"]["report"] is None
    assert run["contenders"]["processes"]["start_up_seconds"] > 0


@pytest.mark.slow
def test_memory(report_of):
    report = report_of(
        "--case=memory",
        "--replicas=2",
        "--rows=70000",
        "--contenders=mgpu_threads",
    )
    (run,) = report["runs"]
    record = run["contenders"]["mgpu_threads"]
    assert 0 < record["anonymous_bytes_above"] < 1e9


def test_bad_flags_end_with_one_line(run_script):
    done = run_script("predict_benchmark.py", "--model=vgg")
    assert done.returncode == 2
    assert done.stderr.startswith("predict_benchmark: model='vgg' is neither")
    assert done.stderr.count("\n") == 1
