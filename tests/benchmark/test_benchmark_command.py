"""The flags of `mgpu benchmark`, and whole runs."""

import json
import os
import subprocess
import sys

import pytest
from absl import flags

from keras_mgpu_strategy.benchmark import command
from keras_mgpu_strategy.benchmark.options import CONTENDERS, BenchmarkOptions


def options_of(*words):
    flag_values = flags.FlagValues()
    command.define_flags(flag_values)
    flag_values(["benchmark", *words])
    return command.options_of(flag_values)


def test_flags_become_options(tmp_path):
    path = tmp_path / "own.keras"
    path.touch()
    words = [f"--model={path},mlp", "--batch=8,auto", "--replicas=1,4", "--rows=9"]
    more = ["--seconds=0.5", "--repetitions=2", "--devices=cpu", "--contenders=ray"]
    assert options_of(*words, *more) == BenchmarkOptions(
        models=(str(path), "mlp"),
        batches=(8, None),
        replicas=(1, 4),
        rows=9,
        seconds=0.5,
        repetitions=2,
        devices="cpu",
        contenders=("ray",),
    )


def test_defaults():
    assert options_of() == BenchmarkOptions()
    assert BenchmarkOptions().contenders == CONTENDERS[:-1]
    shared = options_of("--replicas_per_device=1,2")
    assert shared == BenchmarkOptions(
        replicas=(1, 2), shared=True, contenders=("mgpu_threads",)
    )


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--replicas=1,x"], "--replicas=1,x. Expected integers such as 1,2,4."),
        (["--replicas=1,"], "--replicas=1,. Expected integers such as 1,2,4."),
        (["--batch=x"], "--batch=x. Expected integers such as 1,2,4, or auto."),
        (["--replicas_per_device=1,x"], "--replicas_per_device=1,x. Expected int"),
        (
            ["--replicas_per_device=1,2", "--replicas=2"],
            "does not go with it. Leave one of them out.",
        ),
        (
            ["--replicas_per_device=1,2", "--contenders=keras"],
            "contenders='keras'. Expected one of: keras_strategy, mgpu_threads, ",
        ),
        (["--contenders=keres"], "contenders='keres'. Expected one of: keras, "),
        (["--model=vgg"], "model='vgg' is neither mlp, which is built in, nor an "),
        (["--model=none.keras"], "model='none.keras' is neither"),
        (["--replicas=2,0"], "replicas=0. Expected 1 or more."),
        (["--batch=0"], "batch=0. Expected 1 or more."),
        (["--rows=0"], "rows=0. Expected 1 or more."),
        (["--repetitions=0"], "repetitions=0. Expected 1 or more."),
        (["--seconds=0"], "seconds=0.0. Expected more than 0."),
    ],
)
def test_bad_flags(words, message):
    with pytest.raises(ValueError) as raised:
        options_of(*words)
    assert message in str(raised.value)


def mgpu(*words):
    program = [sys.executable, "-m", "keras_mgpu_strategy", "benchmark", *words]
    return subprocess.run(program, capture_output=True, text=True, timeout=600)


def test_missing_devices_end_with_one_line_after_the_progress():
    done = mgpu("--devices=gpu", "--replicas=64")
    assert done.returncode == 2
    progress, error = done.stderr.splitlines()[0], done.stderr.splitlines()[-1]
    assert progress == "mlp, batch 32, replicas 64 ..."
    assert error.startswith("mgpu: There is no device GPU:")


@pytest.mark.slow
def test_whole_runs(tmp_path):
    size = ["--devices=cpu", "--batch=8", "--repetitions=2", f"--output={tmp_path}"]
    done = mgpu("--replicas=1,2", "--seconds=0.05", *size)
    assert done.returncode == 0, done.stderr
    report = json.loads((tmp_path / "benchmark.json").read_text())
    text = (tmp_path / "benchmark.md").read_text()
    assert text.strip() == done.stdout.strip()
    assert report["format"] == 1
    assert report["command"].startswith("mgpu benchmark --replicas=1,2")
    one, two = report["runs"]
    assert [len(run["devices"]) for run in (one, two)] == [1, 2]
    assert one["rows"] == two["rows"] and one["rows"] % 16 == 0
    assert {run["intra_op_threads"] for run in (one, two)} == {1}
    for run in (one, two):
        assert [*run["contenders"], *run["left_out"]] == list(CONTENDERS[:-1])
        assert not [each for each in run["contenders"].values() if "error" in each]
        assert run["contenders"]["mgpu_threads"]["tried_steps"]["plain"] > 0


@pytest.mark.slow
def test_replicas_that_share_one_device(tmp_path):
    size = ["--devices=cpu", "--batch=auto", "--rows=4000", "--repetitions=1"]
    done = mgpu("--replicas_per_device=2", *size, f"--output={tmp_path}")
    assert done.returncode == 0, done.stderr
    (run,) = json.loads((tmp_path / "benchmark.json").read_text())["runs"]
    cores = len(os.sched_getaffinity(0))
    assert run["intra_op_threads"] == max(cores // 2, 1)
    assert len(run["devices"]) == 2
    assert list(run["contenders"]) == ["mgpu_threads"]
    assert "replicas share one device" in done.stdout
