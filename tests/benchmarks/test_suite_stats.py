"""Medians, ratios, scaling and tables of numbers that can be checked by hand."""

import json

import pytest
from suite import plots, tables


def run(replicas, **rows_per_second):
    return {
        "case": "throughput",
        "model": "tiny",
        "replicas": replicas,
        "per_replica_batch": 8,
        "rows": 64,
        "calls_per_sample": 1,
        "contenders": {
            name: {"rows_per_second": samples, "seconds": samples}
            for name, samples in rows_per_second.items()
        },
    }


ONE = run(1, keras=[10.0, 30.0, 20.0], mgpu_threads=[100.0], limit=[100.0])
TWO = run(2, keras=[20.0], mgpu_threads=[180.0, 150.0], limit=[200.0])


def test_scaling_is_shown_as_a_share_of_the_limits_own():
    assert tables.scaling_of_limit([ONE, TWO], "mgpu_threads") == {
        1: 1.0,
        2: pytest.approx(0.825),
    }


REPORT = {
    "command": "mgpu benchmark",
    "versions": {"tensorflow": "2.21.0", "keras": None},
    "machine": {"usable_cpus": 2, "cpu": "some"},
    "commit": "0123456789abcdef",
    "date": "2030-01-02T03:04:05",
    "runs": [ONE, TWO],
}


def test_tables_show_medians_ratios_and_scaling():
    text = tables.report(REPORT)
    assert "2 CPUs (some), tensorflow 2.21.0, commit 0123456789, 2030-01-02." in text
    assert "### tiny, per-replica batch 8, 1 replica, 64 rows" in text
    assert "| `mgpu_threads` | 165 | 150 to 180 | – | 8.25 | 0.82 |  |" in text
    assert "| tiny | 8 | `mgpu_threads` | 1 to 2 | 1.65 | 0.82 |" in text


def test_tables_name_the_gpus():
    text = tables.report(REPORT | {"runs": [ONE | {"gpu_names": "NVIDIA H200"}]})
    assert "### tiny, per-replica batch 8, 1 replica, 64 rows, GPU: NVIDIA H200" in text


def test_tables_show_errors_and_dropped_rows():
    failed = run(1, keras=[1.0])
    failed["contenders"]["keras"]["odd_rows"] = {"rows_in": 11, "dropped": 3}
    failed["contenders"]["processes"] = {"error": "RuntimeError: a|b"}
    text = tables.report(REPORT | {"runs": [failed]})
    assert "dropped 3 of 11 rows" in text
    assert "| `processes` | – | – | – | – | – | RuntimeError: a/b |" in text


def test_table_of_small_calls():
    text = tables.report(REPORT | {"runs": [ONE | {"case": "small_calls"}]})
    assert "| tiny | 1 | mgpu_threads | 100,000 | – | 5.00 | – |" in text


def test_table_of_memory():
    record = {"anonymous_bytes_above": 12_345_678, "rows_per_second": [5000.0]}
    measured = ONE | {"case": "memory", "contenders": {"mgpu_threads": record}}
    text = tables.report(REPORT | {"runs": [measured]})
    assert "| tiny | 1 | 64 | `mgpu_threads` | 12.3 | 5,000 |" in text


def test_pictures_of_speed_time_and_scaling(tmp_path):
    shares = {"input": 0.25, "compute": 0.5, "read": 0.25, "write": 0.0}
    timed = json.loads(json.dumps(TWO))
    timed["contenders"]["mgpu_threads"]["report"] = {"shares": shares}
    drawn = plots.save(REPORT | {"runs": [ONE, timed]}, tmp_path, "trial")
    assert [path.name for path in drawn] == [
        "trial-tiny-batch8-speed.png",
        "trial-tiny-batch8-time.png",
        "trial-tiny-batch8-scaling.png",
    ]
    assert all(path.read_bytes().startswith(b"\x89PNG") for path in drawn)


def test_pictures_of_two_models_of_one_name(tmp_path):
    runs = [ONE | {"model": path} for path in ("/a/m.keras", "../m.keras", "n.keras")]
    drawn = plots.save(REPORT | {"runs": runs}, tmp_path, "trial")
    assert [path.name for path in drawn] == [
        "trial-a-m.keras-batch8-speed.png",
        "trial-m.keras-batch8-speed.png",
        "trial-n-batch8-speed.png",
    ]
