"""Runs are really killed, by the script that also makes the published table."""

import pathlib
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[1]


@pytest.mark.slow
def test_killed_runs_end_as_if_they_never_were(tmp_path):
    output = tmp_path / "table.md"
    options = ["--kills=3", "--rows=3000", "--jobs=2", f"--output={output}"]
    done = subprocess.run(
        [sys.executable, ROOT / "benchmarks" / "kill_and_resume.py", *options],
        capture_output=True,
        text=True,
        timeout=300,
    )
    assert done.returncode == 0, done.stderr
    _, _, *lines = [x for x in output.read_text().splitlines() if x.startswith("|")]
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines]
    assert [row[:2] for row in cells] == [
        [suffix, replicas]
        for suffix in (".npy", ".parquet", ".zarr", ".csv")
        for replicas in ("1", "2")
    ]
    for _, _, outputs, kills, resumes, mismatches in cells:
        assert (int(kills), mismatches) == (3, "0")
        assert int(outputs) >= 1
        assert int(resumes) >= 1
