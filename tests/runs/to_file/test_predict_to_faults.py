"""Real full disks and signals, in new processes."""

import os
import signal
import time

import pytest

from tests import children, file_faults, file_runs
from tests.formats import stored

pytestmark = pytest.mark.slow


@pytest.fixture(params=file_runs.SUFFIXES)
def path(request, tmp_path):
    return tmp_path / f"out{request.param}"


def assert_as_if_never_stopped(path):
    whole = path.with_name(f"whole{path.suffix}")
    assert stored.content(path) == stored.content(whole)
    assert not file_runs.journal_of(path).exists()
    assert not file_runs.partial_of(path).exists()


# Flushes by time, or after every batch, when the journal exceeds the limit too.
@pytest.mark.parametrize("seconds", [2.0, 0.0])
def test_a_run_that_met_a_full_disk_is_resumed(path, seconds):
    limit = 5000
    children.run(file_faults.on_a_full_disk, path, "generator", seconds, limit)
    safe = int(path.with_suffix(".safe").read_text())
    # The first part or chunk is larger than the limit: none of it can be kept if it
    # was not flushed before.
    is_large = seconds and path.suffix in (".parquet", ".zarr")
    assert (0 if is_large else 1) <= safe < file_faults.NUM_ROWS
    assert_as_if_never_stopped(path)


def test_a_disk_too_small_for_npy_is_found_before_any_row(tmp_path):
    path = tmp_path / "out.npy"
    children.run(file_faults.on_a_full_disk, path, "array", 2.0, 5000)
    assert path.with_suffix(".safe").read_text() == "0"
    assert_as_if_never_stopped(path)


def begun(function, path, num_replicas):
    """A process that has written some rows."""
    process = children.start(function, path, num_replicas)
    deadline = time.monotonic() + 60
    while not (rows := rows_on_disk(path)):
        assert process.is_alive() and time.monotonic() < deadline
        time.sleep(0.01)
    assert rows < file_faults.NUM_ROWS
    return process


def rows_on_disk(path):
    exists = file_runs.journal_of(path).exists()
    return file_runs.safe_rows(path) if exists else 0


def test_ctrl_c_ends_a_run_that_can_be_resumed(tmp_path):
    path = tmp_path / "out.npy"
    process = begun(file_faults.until_a_signal, path, 2)
    before = rows_on_disk(path)
    os.kill(process.pid, signal.SIGINT)
    assert children.end_of(process) != 0
    safe = rows_on_disk(path)
    assert before <= safe < file_faults.NUM_ROWS
    name, _, *notes = path.with_suffix(".error").read_text().splitlines()
    assert name == "KeyboardInterrupt"
    assert notes[-1] == (
        f"Rows 0 to {safe} are safe in {file_runs.partial_of(path)}. To resume "
        "from there, run the same with resume=True (--resume)."
    )
    children.run(file_faults.go_on, path, 2)
    assert_as_if_never_stopped(path)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP, signal.SIGUSR1])
def test_a_signal_ends_a_process_after_the_current_batch(tmp_path, number):
    path = tmp_path / "out.npy"
    process = begun(file_faults.until_a_signal_of_the_scheduler, path, 2)
    os.kill(process.pid, number)
    assert children.end_of(process) == -number
    assert rows_on_disk(path)
    children.run(file_faults.go_on, path, 2)
    assert_as_if_never_stopped(path)


def test_a_handler_that_only_makes_a_note_does_not_make_a_run_look_complete(tmp_path):
    path = tmp_path / "out.npy"
    process = begun(file_faults.until_a_signal_that_is_noted, path, 2)
    os.kill(process.pid, signal.SIGTERM)
    assert children.end_of(process) == 1
    assert path.with_suffix(".noted").read_text() == "15"
    name, text, *notes = path.with_suffix(".error").read_text().splitlines()
    assert name == "InterruptedError"
    assert text == f"SIGTERM ended the run of {path} before its last row."
    assert "resume=True" in notes[-1]
