"""Medians, ratios and tables of numbers that can be checked by hand."""

import pytest

from keras_mgpu_strategy.benchmark import provenance, tables


def run(replicas, **rows_per_second):
    return {
        "case": "throughput",
        "model": "mlp",
        "replicas": replicas,
        "per_replica_batch": 8,
        "rows": 64,
        "gpu_names": None,
        "intra_op_threads": 1,
        "contenders": {
            name: {"rows_per_second": samples, "first_call_seconds": 0.5}
            for name, samples in rows_per_second.items()
        },
    }


ONE = run(1, keras=[10.0, 30.0, 20.0], mgpu_threads=[100.0])
TWO = run(2, keras=[20.0], mgpu_threads=[180.0, 150.0])
REPORT = {
    "command": "mgpu benchmark",
    "versions": {"tensorflow": "2.21.0", "keras": None},
    "machine": {"usable_cpus": 2, "cpu": "some"},
    "date": "2030-01-02T03:04:05",
    "runs": [ONE, TWO],
}


def test_speed_is_the_median():
    assert tables.speed(ONE, "keras") == 20.0
    assert tables.speed(TWO, "mgpu_threads") == 165.0


def test_ratio_is_that_of_the_medians():
    assert tables.ratio(ONE, "mgpu_threads", "keras") == 5.0


def test_what_was_not_measured_has_no_number():
    failed = run(1, keras=[1.0])
    failed["contenders"]["keras_strategy"] = {"error": "ValueError: no"}
    assert tables.speed(failed, "keras_strategy") is None
    assert tables.ratio(failed, "keras", "keras_strategy") is None
    assert tables.ratio(failed, "ray", "keras") is None


def test_speed_up_counts_from_the_fewest_replicas():
    assert tables.speed_up([TWO, ONE], "mgpu_threads") == {1: 1.0, 2: 1.65}
    assert tables.speed_up([ONE], "ray") == {}


def test_only_runs_that_differ_in_replicas_alone_are_grouped():
    other = run(2, keras=[1.0]) | {"per_replica_batch": 16}
    assert list(tables.by_setting([ONE, TWO, other]).values()) == [[ONE, TWO], [other]]


@pytest.mark.parametrize(
    ("value", "text"),
    [(0.0, "0"), (0.0123, "0.0123"), (5.0, "5.00"), (99.96, "100"), (64, "64")],
)
def test_numbers_keep_three_digits(value, text):
    assert tables.number(value) == text


def test_a_table_for_each_model_and_batch():
    other = run(1, keras=[10.0]) | {"per_replica_batch": None}
    text = tables.report(REPORT | {"runs": [ONE, TWO, other]})
    head, machine, title, table, other_title, _ = text.split("\n\n")
    assert head == "`mgpu benchmark`"
    assert machine == "2 CPUs (some), tensorflow 2.21.0, 2030-01-02."
    assert title == "### mlp, per-replica batch 8"
    assert table.splitlines() == [
        "| replicas | CPU threads each | rows | contender | rows/s | lowest to highest "
        "| against Keras, no strategy | against 1 | first call, s |",
        "| --- | --- | --- | --- | --- | --- | --- | --- | --- |",
        "| 1 | 1 | 64 | `keras` | 20.0 | 10.0 to 30.0 | 1.00 | 1.00 | 0.500 |",
        "| 1 | 1 | 64 | `mgpu_threads` | 100 | 100 to 100 | 5.00 | 1.00 | 0.500 |",
        "| 2 | 1 | 64 | `keras` | 20.0 | 20.0 to 20.0 | 1.00 | 1.00 | 0.500 |",
        "| 2 | 1 | 64 | `mgpu_threads` | 165 | 150 to 180 | 8.25 | 1.65 | 0.500 |",
    ]
    assert other_title == "### mlp, default arguments"


def test_a_shared_gpu():
    gpu = {"gpu_names": "NVIDIA H200", "intra_op_threads": None, "case": "one_device"}
    text = tables.report(REPORT | {"runs": [ONE | gpu]})
    title = "### mlp, per-replica batch 8, replicas share one device, GPU: NVIDIA H200"
    assert title in text
    assert "CPU threads" not in text


def test_errors_and_found_batches_are_noted():
    failed = run(1, mgpu_threads=[1.0]) | {"per_replica_batch": None}
    failed["contenders"]["mgpu_threads"]["report"] = {"batch_size": 512}
    failed["contenders"]["keras"] = {"error": "RuntimeError: a|b"}
    text = tables.report(REPORT | {"runs": [failed]})
    assert "| 0.500 | batch 512 found |" in text
    assert "| `keras` | – | – | – | RuntimeError: a/b |" in text


def test_candidates_of_compile_and_notes_about_them():
    each = run(1, mgpu_threads=[3.0], mgpu_plain=[2.0], mgpu_xla=[0.1], openvino=[4.0])
    each |= {"left_out": ["onnxruntime"], "largest_value": 2.0}
    made = each["contenders"]
    made["mgpu_threads"]["report"] = {"step": "frozen"}
    made["mgpu_xla"] |= {"rows": 8, "largest_difference": 1e-5}
    made["openvino"] |= {"rows": 64, "largest_difference": 4e-5}
    *_, table, last = tables.report(REPORT | {"runs": [each]}).split("\n\n")
    cells = [line.split(" | ")[-3:] for line in table.splitlines()]
    assert cells == [
        ["against plain", "first call, s", "notes |"],
        ["---", "---", "--- |"],
        ["1.50", "0.500", "auto: frozen |"],
        ["1.00", "0.500", " |"],
        ["0.05", "0.500", "slow: only the first 8 rows |"],
        ["2.00", "0.500", "results differ by up to 4.0e-05 |"],
    ]
    assert last == (
        "Not measured: `onnxruntime`. On a CPU, they are after "
        '`pip install "keras_mgpu_strategy[compare]"`.\n'
    )


def test_the_machine_is_described():
    found = provenance.describe()
    assert found["versions"]["tensorflow"] and found["versions"]["keras_mgpu_strategy"]
    assert found["machine"]["cpu_count"] >= found["machine"]["usable_cpus"] >= 1
