"""One or several replicas on one device: what is measured, and how it is shown."""

import json
import os

import pytest
from absl import flags
from suite import catalog, command, tables
from suite.jobs import Options, series


def options_of(*words):
    flag_values = flags.FlagValues()
    command.define_flags(flag_values)
    flag_values(["benchmark", *words])
    return command.options_of(flag_values)


def test_the_flag_is_short_for_a_case():
    options = options_of("--replicas_per_device=1,2,4", "--model=mlp")
    assert options == Options(case="one_device", replicas=(1, 2, 4), models=("mlp",))


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replicas=2"], "does not go with --replicas. Leave one of them out."),
        (["--case=memory"], "does not go with --case. Leave one of them out."),
    ],
)
def test_what_it_does_not_go_with(words, message):
    with pytest.raises(ValueError, match="stands for --case=") as raised:
        options_of("--replicas_per_device=1,2", *words)
    assert message in str(raised.value)


def test_what_is_not_a_number():
    with pytest.raises(
        ValueError, match="--replicas_per_device=1,x. Expected integers"
    ):
        options_of("--replicas_per_device=1,x")
    with pytest.raises(ValueError, match="replicas=0. Expected 1 or more."):
        options_of("--replicas_per_device=1,0")


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ({"models": ("mlp",)}, [(32, 32), (1024, 1024), (None, 1024)]),
        ({"models": ("mlp",), "batch": 8}, [(8, 8), (None, 8)]),
    ],
)
def test_each_batch_and_an_automatic_one(options, expected):
    every = series(Options(case="one_device", replicas=(2,), **options))
    jobs = [job for one in every for job in one.jobs(2, None)]
    assert [(job.batch, job.reference_batch) for job in jobs] == expected
    assert {job.contenders for job in jobs} == {("mgpu_threads",)}
    assert not any(job.odd_rows for job in jobs)
    # A sample has whole batches even if the batch is found, so that it is not tiny.
    assert [job.row_multiple for job in jobs] == [2 * each for _, each in expected]


def test_other_cases_compare_with_the_batch_that_they_measure():
    for case in ("throughput", "defaults"):
        for one in series(Options(case=case, replicas=(2,), models=("mlp",))):
            assert all(job.reference_batch == job.batch for job in one.jobs(2, None))


def run(replicas, batch, *rows_per_second):
    record = {"rows_per_second": list(rows_per_second), "report": {"batch_size": 512}}
    return {
        "case": "one_device",
        "model": "mlp",
        "replicas": replicas,
        "per_replica_batch": batch,
        "intra_op_threads": 2 // replicas,
        "contenders": {"mgpu_threads": record},
    }


def test_one_table_against_the_fewest_replicas():
    runs = [run(1, 8, 100.0), run(2, 8, 150.0, 130.0), run(1, None, 400.0)]
    heading, text = tables._one_device([*runs, run(2, None, 300.0)])
    assert heading == "All replicas share the CPU."
    head, _, *lines = text.splitlines()
    assert head.endswith("| lowest to highest | against 1 |")
    assert lines == [
        "| mlp | 8 | 1 | 2 | `mgpu_threads` | 100 | 100 to 100 | 1.00 |",
        "| mlp | 8 | 2 | 1 | `mgpu_threads` | 140 | 130 to 150 | 1.40 |",
        "| mlp | automatic (512) | 1 | 2 | `mgpu_threads` | 400 | 400 to 400 | 1.00 |",
        "| mlp | automatic (512) | 2 | 1 | `mgpu_threads` | 300 | 300 to 300 | 0.75 |",
    ]


def test_threads_of_a_gpu_are_not_shown():
    on_gpu = run(2, 8, 100.0) | {"gpu_names": "NVIDIA H200", "intra_op_threads": None}
    heading, text = tables._one_device([on_gpu])
    assert heading == "All replicas share a GPU (NVIDIA H200)."
    assert "| mlp | 8 | 2 | – |" in text
    assert "| against 2 |" in text


@pytest.mark.slow
def test_a_whole_run(tmp_path, run_script):
    words = ["--replicas_per_device=2", "--devices=cpu", "--model=tiny", "--batch=8"]
    size = ["--rows=4000", "--repetitions=1", f"--output={tmp_path}"]
    done = run_script("predict_benchmark.py", *words, *size)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "one_device.json").read_text())
    cores = len(os.sched_getaffinity(0))
    measured = [
        (one["replicas"], one["per_replica_batch"], one["intra_op_threads"])
        for one in report["runs"]
    ]
    threads = max(cores // 2, 1)
    assert measured == [(2, 8, threads), (2, None, threads)]
    for one in report["runs"]:
        record = one["contenders"]["mgpu_threads"]
        assert len(one["devices"]) == one["replicas"]
        assert record["report"]["rows"] == 4000
        assert record["rows_per_second"][0] > 0
    assert f"## one_device: {catalog.CASES['one_device']}" in done.stdout
    assert (tmp_path / "one_device.md").read_text().strip() == done.stdout.strip()
