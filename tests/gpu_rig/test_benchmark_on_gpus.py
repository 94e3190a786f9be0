"""`mgpu benchmark` on simulated GPUs, of which the first is three times slower."""

import json
import subprocess
import sys

import pytest
from on_rig import ROOT, environment

BATCH, SECONDS = 64, (0.06, 0.02)
IDEAL = BATCH * sum(1 / seconds for seconds in SECONDS)


@pytest.mark.slow
def test_contenders_are_exact_and_deal_out_rows_by_speed(plugin, tmp_path):
    settings = {"RIG_GPUS": "2", "RIG_KERNEL_US": "10000", "RIG_SLOW": "3"}
    words = ["--replicas=2", "--devices=gpu", "--model=tiny", f"--batch={BATCH}"]
    size = [f"--rows={BATCH * 40}", "--repetitions=3", f"--output={tmp_path}"]
    names = ["keras", "keras_strategy", "mgpu_threads", "mgpu_mirrored", "limit"]
    done = subprocess.run(
        [sys.executable, "benchmarks/predict_benchmark.py", *words, *size]
        + [f"--contenders={','.join(names)}"],
        env=environment(plugin, settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=600,
    )
    assert done.returncode == 0, done.stderr[-4000:]
    assert "2 replicas, 2,560 rows, GPU: SIMULATED_UNEQUAL" in done.stdout
    (run,) = json.loads((tmp_path / "throughput.json").read_text())["runs"]
    assert [device[-5:] for device in run["devices"]] == ["GPU:0", "GPU:1"]
    assert list(run["contenders"]) == names
    for name, record in run["contenders"].items():
        assert "error" not in record
        assert max(record["rows_per_second"]) < 1.05 * IDEAL
        if name != "limit":
            assert record["largest_difference"] < 1e-5
            odd = record["odd_rows"]
            assert (odd["rows_in"], odd["rows_out"]) == (131, 131)
    # Equal shares would give 0.5 of the ideal.
    assert max(run["contenders"]["limit"]["rows_per_second"]) > 0.55 * IDEAL
