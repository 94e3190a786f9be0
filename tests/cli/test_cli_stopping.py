"""Runs of the command line that are stopped or fail, and are resumed."""

import os
import pathlib
import signal
import subprocess
import sys
import time
from unittest.mock import ANY

import numpy as np
import pandas as pd
import pytest
from command_line import DIGITS, MGPU, environment, mgpu, write_photos

from keras_mgpu_strategy.outputs import journal as journals

NUM_PHOTOS = 400
OWN_MODULE = """
import os, time

def slowly(batch):
    time.sleep(float(os.environ.get("SECONDS_A_ROW", "0")) * len(batch))
    return batch / 255

def broken(batch):
    if batch.any() and len(batch) != 1:
        raise KeyError("brightness")
    return batch / 255
"""


@pytest.fixture(scope="module")
def place(tmp_path_factory):
    """A folder with images and a user's module."""
    folder = tmp_path_factory.mktemp("stopping")
    write_photos(folder / "photos", NUM_PHOTOS)
    (folder / "own.py").write_text(OWN_MODULE)
    return folder


@pytest.fixture
def in_place(place, monkeypatch):
    monkeypatch.chdir(place)


def start(*flags):
    """Starts a run that takes some seconds."""
    words = (*MGPU, "predict", DIGITS, "photos", "--preprocess=own:slowly", *flags)
    return subprocess.Popen(
        [*map(str, words), "--batch_size=1", "--verbose=0"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env=environment(SECONDS_A_ROW="0.03"),
    )


def has_rows(process, output):
    """Whether some rows are on disk."""
    journal = pathlib.Path(f"{output}.journal")
    assert process.poll() is None
    return journal.exists() and journals.read(journal).progress


def stop_with_rows(runs, numbers):
    """Sends each run its signal once it has some rows on disk."""
    deadline = time.monotonic() + 200
    while runs:
        assert time.monotonic() < deadline
        ready = [
            output for output, process in runs.items() if has_rows(process, output)
        ]
        for output in ready:
            runs.pop(output).send_signal(numbers[output])
        time.sleep(0.05)


def test_signals_stop_runs_that_can_be_resumed(in_place):
    numbers = {
        "scores.parquet": (signal.SIGINT, "interrupted", 130),
        "the scores.csv": (signal.SIGTERM, "terminated", 143),
        "hung up.csv": (signal.SIGHUP, "stopped by SIGHUP", -1),
        "slurm.parquet": (signal.SIGUSR1, "stopped by SIGUSR1", -signal.SIGUSR1),
    }
    runs = {output: start("--stop_on=USR1", f"--output={output}") for output in numbers}
    stop_with_rows(dict(runs), {name: how[0] for name, how in numbers.items()})
    resumed = {
        output: check_stopped(process, output, *numbers[output][1:])
        for output, process in runs.items()
    }
    for output, (process, num_safe) in resumed.items():
        printed, complaints = process.communicate(timeout=100)
        assert (process.returncode, complaints) == (0, "")
        assert f"rows      {NUM_PHOTOS - num_safe} in this run" in printed
        assert not os.path.exists(f"{output}.journal")
        read = pd.read_csv if output.endswith(".csv") else pd.read_parquet
        table = read(output)
        assert table["row"].tolist() == list(range(NUM_PHOTOS))
        assert not table.isna().to_numpy().any()


def test_resuming_a_finished_output_does_nothing(place):
    flags = ("--output=done.csv", "--preprocess=unit", "--verbose=0")
    first, again = (
        mgpu("predict", DIGITS, "photos", *flags, *more, cwd=place)
        for more in ((), ("--resume",))
    )
    assert (first.returncode, again.returncode) == (0, 0), again.stderr
    assert "rows      0 in this run" in again.stdout
    other = ("--method=predict", "--resume")
    refused = mgpu("predict", DIGITS, "photos", *flags, *other, cwd=place)
    assert refused.returncode == 2
    expected = "The output is finished, but another run wrote it (method: "
    assert expected in refused.stderr and "--overwrite" in refused.stderr


def check_stopped(process, output, word, code):
    """Checks how a run ended, and resumes it as its message says."""
    printed = process.communicate(timeout=100)[1]
    assert process.returncode == code
    begin, _, command = printed.rstrip("\n").partition(" To resume: ")
    progress = journals.read(pathlib.Path(f"{output}.journal")).progress
    assert progress is not None
    num_safe = progress.rows
    assert 0 < num_safe < NUM_PHOTOS
    assert begin == f"mgpu: {word}. {num_safe} of {NUM_PHOTOS} rows are safe."
    assert command.endswith(" --resume") and "\n" not in command
    assert not os.path.exists(output)
    pipe = subprocess.PIPE
    resumed = subprocess.Popen(
        command, shell=True, stdout=pipe, stderr=pipe, text=True, env=environment()
    )
    return resumed, num_safe


def test_a_second_signal_ends_the_process_at_once(in_place):
    process = start("--output=o.npy")
    stop_with_rows({"o.npy": process}, {"o.npy": signal.SIGINT})
    time.sleep(0.2)
    process.send_signal(signal.SIGINT)
    began = time.monotonic()
    process.communicate(timeout=100)
    assert time.monotonic() - began < 4
    # The second code: if Python is exiting already, the system ends the process.
    assert process.returncode in (130, -signal.SIGINT)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGHUP])
def test_a_run_that_cannot_stop_is_ended_by_its_signal(number):
    code = (
        "import os, signal, time\n"
        "from keras_mgpu_strategy.cli.ending import stoppable\n"
        f"with stoppable(lambda: 'No row is safe yet.', [{int(number)}]):\n"
        "    try:\n"
        f"        os.kill(os.getpid(), {int(number)})\n"
        "    finally:\n"
        "        time.sleep(100)\n"
    )
    result = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, timeout=60
    )
    assert "No row is safe yet." in result.stderr
    assert result.returncode == (143 if number == signal.SIGTERM else -number)


def test_a_signal_not_named_in_stop_on_ends_the_process_at_once(in_place):
    process = start("--output=killed.csv")
    stop_with_rows({"killed.csv": process}, {"killed.csv": signal.SIGUSR1})
    assert process.communicate(timeout=100) == (ANY, "")
    assert process.returncode == -signal.SIGUSR1


def test_an_unknown_signal_is_refused_before_any_work(in_place):
    result = mgpu("predict", DIGITS, "photos", "--output=o.csv", "--stop_on=KILL")
    assert result.returncode == 2
    assert result.stderr.startswith("mgpu: Received --stop_on=KILL, expected one or ")


def test_an_error_in_a_function_of_the_user(in_place, place):
    (place / "b.npy").write_text("old")
    flags = ("--preprocess=own:broken", "--output=b.npy", "--overwrite")
    result = mgpu("predict", DIGITS, "photos", *flags, cwd=place)
    assert result.returncode == 1
    assert "Traceback" not in result.stderr
    lines = [line for line in result.stderr.splitlines() if "mgpu: " in line]
    assert lines[-3].startswith("mgpu: KeyError: 'brightness' (")
    assert lines[-3].endswith("own.py, line 10)")
    assert lines[-2].startswith("mgpu: Raised while rows ")
    assert lines[-1].startswith("mgpu: No row is safe yet. To start again: ")
    assert lines[-1].endswith(" --output=b.npy --overwrite")  # --resume would refuse


def test_a_full_disk(in_place):
    # A limit on the size of files raises the same kind of error, without a mount.
    np.save("rows.npy", np.zeros((100_000, 8, 8, 1), np.float32))
    command = f"ulimit -f 1000; {' '.join(MGPU)} predict {DIGITS} rows.npy"
    result = subprocess.run(
        f"{command} --output=full.csv --verbose=0",
        shell=True,
        executable="/bin/bash",
        capture_output=True,
        text=True,
        env=environment(),
    )
    assert result.returncode == 1, result.stderr
    error, rows = result.stderr.splitlines()
    assert error.startswith("mgpu: [Errno 27] File too large")
    assert " of 100,000 rows are safe. To resume: " in rows
