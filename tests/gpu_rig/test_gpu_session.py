"""The script for machines with a GPU, on a simulated one."""

import json
import subprocess
import sys

import pytest
from on_rig import ROOT, environment

sys.path.append(str(ROOT / "benchmarks"))
import gpu_profile  # noqa: E402


def session(plugin, folder, *words):
    settings = {"RIG_GPUS": "1", "RIG_MEMORY_MB": "320", "RIG_SMI_MB": "64"}
    script = [sys.executable, "benchmarks/gpu_session.py", f"--output={folder}"]
    done = subprocess.run(
        [*script, "--quick", *words],
        env=environment(plugin, settings),
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=900,
    )
    lines = (folder / "steps.jsonl").read_text().splitlines()
    return done, {line["step"]: line for line in map(json.loads, lines)}


@pytest.mark.slow
def test_each_part_in_its_quick_form(plugin, tmp_path):
    names = ["exact threads", "overlap threads", "memory activations threads"]
    names += ["benchmark throughput", "case runs.freed threads"]
    names += ["compiled threads", "padded threads"]
    done, found = session(plugin, tmp_path, f"--steps={','.join(names)}")
    assert {step: each["outcome"] for step, each in found.items()} == dict.fromkeys(
        ["card", "exact threads", "case runs.freed threads", "overlap threads"]
        + ["benchmark throughput", "memory activations threads"]
        + ["compiled threads", "padded threads"],
        "right",
    ), found
    assert done.returncode == 0, done.stderr
    assert found["card"]["result"]["name"] == "SIMULATED"
    busy = found["overlap threads"]["result"]["busy"]
    assert busy["kernels"] + busy["kernels+in"] > 0.19  # 20 batches of 10 ms
    assert found["memory activations threads"]["result"]["first_back_offs"]
    summary = (tmp_path / "summary.md").read_text()
    assert summary.startswith("# SIMULATED\n")
    assert summary.count("| right |") == len(found)
    assert "GPU: SIMULATED" in (tmp_path / "throughput.md").read_text()


def test_a_step_that_fails_or_has_no_time_does_not_end_the_others(plugin, tmp_path):
    # TensorFlow takes longer than this to start.
    done, found = session(plugin, tmp_path, "--steps=exact", "--seconds=5.2")
    assert done.returncode == 1
    assert list(found) == ["card", "exact threads", "exact mirrored"]
    assert found["exact mirrored"]["outcome"] == "no time left"
    assert "| no time left |" in (tmp_path / "summary.md").read_text()


def test_what_ran_at_the_same_time():
    busy = gpu_profile.busy_of([(0, 4, 0), (1, 2, 1), (2, 6, 2), (9, 10, 0)])
    assert {name: seconds for name, seconds in busy.items() if seconds} == {
        "none": 3,
        "kernels": 2,
        "kernels+in": 1,
        "kernels+out": 2,
        "out": 2,
    }


def test_a_profile_of_a_gpu(tmp_path):
    from tensorflow.tsl.profiler.protobuf import xplane_pb2

    space = xplane_pb2.XSpace()
    plane = space.planes.add(name="/device:GPU:0")
    names = ["sm90_xmma_gemm", "MemcpyH2D", "MemcpyD2H", "MemcpyD2D"]
    for index, name in enumerate(names):
        plane.event_metadata[index].name = name
        for label in (f"Stream #{index}", "TensorFlow Ops"):
            line = plane.lines.add(name=label, timestamp_ns=1000)
            second = 10**12
            line.events.add(
                metadata_id=index, offset_ps=index * second, duration_ps=2 * second
            )
    space.planes.add(name="/host:CPU").lines.add(name="Stream #9").events.add()
    (tmp_path / "host.xplane.pb").write_bytes(space.SerializeToString())
    busy = gpu_profile.profiled(tmp_path)
    assert {name: round(s, 6) for name, s in busy.items() if s > 1e-6} == {
        "kernels": 1,
        "kernels+in": 1,
        "in+out": 1,
        "out": 1,
    }
